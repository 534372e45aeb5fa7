/**
 * Takes messages of a queue by hand: claims some, and says of each what became of it.
 *
 * **When to use**
 *
 * Where the one who works is not a fiber of this program: behind HTTP, in a script, in a test. `QueueWorker` does all of it
 * by itself, and `QueueStream` gives messages as they come.
 *
 * **Details**
 *
 * What was claimed belongs to the claimer until the lease runs out; `extend` renews it. What is said after that changes nothing and
 * fails with `LeaseLost`: others have, or had, the message by then.
 *
 * **Example** (One message)
 *
 * ```ts
 * import * as QueuePull from "@strata/queues/QueuePull"
 * import type * as Queue from "@strata/queues/Queue"
 * import * as Effect from "effect/Effect"
 *
 * declare const mails: Queue.Queue<{ readonly to: string }>
 *
 * const program = Effect.gen(function*() {
 *   const pull = yield* QueuePull.QueuePull
 *   const [delivery] = yield* pull.claim(mails, { limit: 1 })
 *   if (delivery !== undefined) yield* pull.ack(delivery)
 * })
 * ```
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Claims from "./consuming/Claims.ts"
import * as Handling from "./consuming/Handling.ts"
import * as HeaderFilter from "./consuming/HeaderFilter.ts"
import { type Message, messageOf } from "./Message.ts"
import type { Queue } from "./Queue.ts"
import { LeaseLost, QueueError, unavailable } from "./QueueError.ts"
import { QueuePolicies } from "./QueuePolicies.ts"
import { Queues } from "./Queues.ts"
import * as Payload from "./sending/Payload.ts"
import * as StoredPayload from "./sending/StoredPayload.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * A message that was claimed, and the token to show with what is said of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Delivery<out A> {
  readonly token: string
  readonly message: Message<A>
  /** As it was claimed. */
  readonly claimed: Claims.Claimed
}

/**
 * What to claim.
 *
 * - `limit` (1): messages at most; fewer where they are large, as `QueuePolicies.claimSize` says.
 * - `worker` (`pull`): what failures call the one who works.
 * - `lease`: default, that of the queue.
 * - `filter`: which messages; default, all.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClaimOptions {
  readonly limit?: number | undefined
  readonly worker?: string | undefined
  readonly lease?: Duration.Input | undefined
  readonly filter?: HeaderFilter.HeaderFilter | undefined
}

/**
 * Why a message was not done.
 *
 * - `reason`: what went wrong, for people.
 * - `after`: when it is to be tried again, while the policy has tries and time left; default, as the policy says.
 * - `giveUp` (false): it is not to be tried again.
 *
 * @category options
 * @since 0.1.0
 */
export interface NackOptions {
  readonly reason: string
  readonly after?: Duration.Input | undefined
  readonly giveUp?: boolean | undefined
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * Claims, and what is said of what was claimed.
 *
 * @category services
 * @since 0.1.0
 */
export class QueuePull extends Context.Service<QueuePull, {
  /** The most urgent messages, at most `limit`. None when there is none: it does not wait. */
  readonly claim: <A>(queue: Queue<A>, options?: ClaimOptions) => Effect.Effect<ReadonlyArray<Delivery<A>>, QueueError>
  /** It is done. */
  readonly ack: (delivery: Delivery<unknown>) => Effect.Effect<void, QueueError>
  /** It failed: it is tried again, or given up. */
  readonly nack: (delivery: Delivery<unknown>, options: NackOptions) => Effect.Effect<void, QueueError>
  /** It was not begun: it is there for others, and the try does not count. */
  readonly release: (delivery: Delivery<unknown>) => Effect.Effect<void, QueueError>
  /** Not now: it comes back after a while, and the try does not count. */
  readonly snooze: (delivery: Delivery<unknown>, after: Duration.Input) => Effect.Effect<void, QueueError>
  /** More time, from now. */
  readonly extend: (delivery: Delivery<unknown>, lease: Duration.Input) => Effect.Effect<void, QueueError>
}>()("@strata/queues/QueuePull") {}

/**
 * Takes messages of the database in the context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<QueuePull, never, Postgres | Queues> = Layer.effect(
  QueuePull,
  Effect.gen(function*() {
    const postgres = yield* Postgres
    const queues = yield* Queues
    const policies = yield* QueuePolicies
    const claims = Claims.make(postgres)

    const settle = ({ claimed, message, token }: Delivery<unknown>, said: Partial<Claims.Settlement>) =>
      Effect.flatMap(
        Effect.mapError(claims.settleOne(token, claimed.id, { ...nothing, ...said }), unavailable("settle")),
        (isThere) => isThere ? Effect.void : Effect.fail(lost(message.queue, token))
      )

    const claim = Effect.fnUntraced(function*<A>(queue: Queue<A>, options: ClaimOptions = {}) {
      const { filter, lease, limit = 1, worker = "pull" } = options
      const { id, settings } = yield* queues.find(queue)
      const found = yield* Effect.mapError(
        claims.claim({
          queue: id,
          worker,
          lease: lease === undefined ? settings.lease : Duration.fromInputUnsafe(lease),
          limit,
          suspects: limit,
          above: Claims.fromTheBeginning,
          filter: filter === undefined ? undefined : HeaderFilter.toJsonPath(filter),
          bytes: policies.claimSize
        }),
        unavailable("claim")
      )
      const deliveries: Array<Delivery<A>> = []
      for (const each of found) {
        const claimed = yield* Effect.mapError(StoredPayload.fetch(queues.payloads, each), unavailable("claim"))
        const payload = Payload.decode(queue, claimed)
        const { attempts, id, token } = claimed
        if (Result.isSuccess(payload)) {
          deliveries.push({ token, message: messageOf(queue.name, claimed, payload.success), claimed })
        } else {
          const dead = [Handling.unreadable(id, attempts, payload.failure, worker)]
          yield* Effect.mapError(claims.settle(token, { ...nothing, dead }), unavailable("settle"))
        }
      }
      return deliveries
    })

    const nack = Effect.fnUntraced(function*(delivery: Delivery<unknown>, options: NackOptions) {
      const { claimed, message } = delivery
      const { settings: { maxAttempts, retry } } = yield* queues.find({ name: message.queue })
      const random = yield* Random.next
      const judged = Handling.judge(
        Cause.fail(options.giveUp === true ? new Handling.Reject(options) : new Handling.Failed(options)),
        {
          id: claimed.id,
          attempt: claimed.attempts,
          firstAt: claimed.firstAt,
          now: claimed.claimedAt,
          worker: "pull",
          random
        },
        {
          classifier: Handling.classify,
          retry,
          maxAttempts: maxAttempts ?? retry.attempts,
          after: options.after === undefined ? undefined : Duration.fromInputUnsafe(options.after)
        }
      )
      if (judged === undefined) return yield* settle(delivery, { released: [claimed.id] })
      if ("dead" in judged) return yield* settle(delivery, { dead: [judged.dead] })
      return yield* settle(delivery, { retried: [judged.retried] })
    })

    const extend = (delivery: Delivery<unknown>, lease: Duration.Input) =>
      Effect.flatMap(
        Effect.mapError(claims.extend([delivery.token], Duration.fromInputUnsafe(lease)), unavailable("extend")),
        (kept) => kept.has(delivery.token) ? Effect.void : Effect.fail(lost(delivery.message.queue, delivery.token))
      )

    return QueuePull.of({
      claim,
      ack: (delivery) => settle(delivery, { done: [delivery.claimed.id] }),
      nack,
      release: (delivery) => settle(delivery, { released: [delivery.claimed.id] }),
      snooze: (delivery, after) =>
        settle(delivery, {
          retried: [{ id: delivery.claimed.id, after: Duration.fromInputUnsafe(after), failure: undefined }]
        }),
      extend
    })
  })
)

const nothing: Claims.Settlement = { done: [], released: [], retried: [], dead: [] }

const lost = (queue: string, token: string) => new QueueError({ reason: new LeaseLost({ queue, token }) })
