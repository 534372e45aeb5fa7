/**
 * Asks several queues the same, and gathers their answers.
 *
 * **Details**
 *
 * All are asked at once. Whoever has not answered when the time is up is left out, and told by name: what is there may be enough.
 *
 * **Example** (The best offer of those who answered within a second)
 *
 * ```ts
 * import * as ScatterGather from "@strata/queues/patterns/ScatterGather"
 * import type * as Queue from "@strata/queues/Queue"
 * import * as Schema from "effect/Schema"
 *
 * declare const sellers: ReadonlyArray<Queue.Queue<{ readonly article: string }>>
 *
 * const offers = ScatterGather.ask(sellers, { payload: { article: "a" } }, {
 *   reply: Schema.Struct({ cents: Schema.Int }),
 *   timeout: "1 second"
 * })
 * ```
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import type * as Deadline from "@strata/resilience/bounds/Deadline"
import type * as SecureRandom from "effect/crypto/SecureRandom"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import type { NewMessage } from "../Message.ts"
import type { Queue } from "../Queue.ts"
import type { QueueError } from "../QueueError.ts"
import type { Queues } from "../Queues.ts"
import * as RequestReply from "./RequestReply.ts"

/**
 * What came back.
 *
 * @category models
 * @since 0.1.0
 */
export interface Gathered<out B> {
  /** By the names of the queues. */
  readonly answers: ReadonlyMap<string, B>
  /** Those that did not answer, or not with what was expected. */
  readonly missing: ReadonlyMap<string, QueueError | RequestReply.RequestFailed | Deadline.DeadlineExceeded>
}

/**
 * Asks all queues at once, and waits until all have answered or the time is up.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ask = <A, B, I>(
  queues: ReadonlyArray<Queue<A>>,
  message: NewMessage<A>,
  options: { readonly reply: Schema.Codec<B, I>; readonly timeout: Duration.Input }
): Effect.Effect<Gathered<B>, never, Queues | Postgres | SecureRandom.SecureRandom> =>
  Effect.map(
    Effect.forEach(
      queues,
      (queue) => Effect.map(Effect.result(RequestReply.ask(queue, message, options)), (result) => ({ queue, result })),
      { concurrency: "unbounded" }
    ),
    (asked) => ({
      answers: new Map(
        asked.flatMap(({ queue, result }) => Result.isSuccess(result) ? [[queue.name, result.success] as const] : [])
      ),
      missing: new Map(
        asked.flatMap(({ queue, result }) => Result.isFailure(result) ? [[queue.name, result.failure] as const] : [])
      )
    })
  )
