/**
 * Sends each message of a queue on to another one, by its headers or by what it holds.
 *
 * **Details**
 *
 * A message is taken from one queue and sent to the other in one transaction, so it is in one of them at any time.
 * What no route wants goes to `otherwise`, or is given up as a dead letter of the router's queue.
 *
 * **Example** (Orders by region)
 *
 * ```ts
 * import * as Router from "@strata/queues/patterns/Router"
 * import type * as Queue from "@strata/queues/Queue"
 *
 * declare const orders: Queue.Queue<{ readonly region: string; readonly total: number }>
 * declare const europe: Queue.Queue<{ readonly region: string; readonly total: number }>
 * declare const large: Queue.Queue<{ readonly region: string; readonly total: number }>
 *
 * const layer = Router.layer(orders, [
 *   { when: Router.header("region", "eu"), to: europe },
 *   { when: ({ payload }) => payload.total > 1000, to: large }
 * ])
 * ```
 *
 * @since 0.1.0
 */
import { type Postgres } from "@strata/postgres/Postgres"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import type { SqlError } from "effect/sql/SqlError"
import * as Handling from "../consuming/Handling.ts"
import type { HeaderValue } from "../consuming/HeaderFilter.ts"
import * as Inbox from "../Inbox.ts"
import type { Message } from "../Message.ts"
import type { Queue } from "../Queue.ts"
import type { QueueError } from "../QueueError.ts"
import { Queues } from "../Queues.ts"
import * as QueueWorker from "../QueueWorker.ts"

/**
 * Where messages go for which `when` is true.
 *
 * @category models
 * @since 0.1.0
 */
export interface Route<A> {
  readonly when: (message: Message<A>) => boolean
  readonly to: Queue<A>
}

/**
 * True for messages with this header.
 *
 * @category predicates
 * @since 0.1.0
 */
export const header = (name: string, value: HeaderValue) => (message: Message<unknown>): boolean =>
  message.headers[name] === value

type Failure = Handling.Reject | QueueError | SqlError | TransactionError

/**
 * Sends messages on, each to the first route that wants it, as long as the layer is there.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <A>(
  from: Queue<A>,
  routes: ReadonlyArray<Route<A>>,
  options: { readonly otherwise?: Queue<A> | undefined; readonly concurrency?: number | undefined } = {}
): Layer.Layer<never, QueueError, Queues | Postgres> =>
  QueueWorker.layer(from, (message): Effect.Effect<unknown, Failure, Queues | Postgres> => {
    const to = routes.find(({ when }) => when(message))?.to ?? options.otherwise
    return to === undefined
      ? Effect.fail(new Handling.Reject({ reason: "no route wants it" }))
      : sendOn(from, to, message)
  }, { name: "router", concurrency: options.concurrency })

const sendOn = <A>(
  from: Queue<A>,
  to: Queue<A>,
  { causationId, correlationId, headers, id, key, payload, priority, tenant, type }: Message<A>
): Effect.Effect<Option.Option<unknown>, QueueError | SqlError | TransactionError, Queues | Postgres> =>
  Effect.flatMap(Queues, (queues) =>
    queues.send(to, [{
      payload,
      priority,
      key,
      headers,
      tenant,
      type: type === from.name ? undefined : type,
      correlationId,
      causationId: causationId ?? String(id)
    }])).pipe(Inbox.once(`router of ${from.name}`, { id }))
