/**
 * The messages of a queue as a `Stream`, each with what may be said of it.
 *
 * **When to use**
 *
 * Where messages are to be grouped, throttled, joined or sent on as streams are. Where a handler is called for each of them,
 * `QueueWorker` does more by itself: it times out, tries again and traces.
 *
 * **Details**
 *
 * - Messages are claimed ahead, and begin in the order that a worker would have. Their leases are renewed while the stream runs.
 * - What is said of messages is told in batches, at the latest after `QueuePolicies.flush`. The first word counts.
 * - So many deliveries may be out and not settled; the stream waits when there are more.
 * - When the stream ends, what was not begun is given back. What is out and not settled is given back too, or has failed when
 *   the stream ends with a failure: or else a message that ends each stream would do so for ever.
 *
 * **Gotchas**
 *
 * Who never settles anything gets no more than `unsettled` messages.
 *
 * **Example** (Mails, a hundred at a time)
 *
 * ```ts
 * import * as QueueStream from "@strata/queues/QueueStream"
 * import type * as Queue from "@strata/queues/Queue"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * declare const mails: Queue.Queue<{ readonly to: string }>
 * declare const sendAll: (mails: ReadonlyArray<{ readonly to: string }>) => Effect.Effect<void>
 *
 * const program = QueueStream.deliveries(mails, { unsettled: 200 }).pipe(
 *   Stream.groupedWithin(100, "1 second"),
 *   Stream.mapEffect((group) =>
 *     Effect.andThen(
 *       sendAll(group.map(({ message }) => message.payload)),
 *       Effect.forEach(group, ({ ack }) => ack)
 *     )
 *   ),
 *   Stream.runDrain
 * )
 * ```
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Pull from "effect/Pull"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as Handling from "./consuming/Handling.ts"
import type * as HeaderFilter from "./consuming/HeaderFilter.ts"
import { done, type Held, type Outcome, released } from "./consuming/Holdings.ts"
import * as Judging from "./consuming/Judging.ts"
import * as Life from "./consuming/Life.ts"
import * as Signal from "./consuming/Signal.ts"
import type { Message } from "./Message.ts"
import type { Queue } from "./Queue.ts"
import { type QueueError, unavailable } from "./QueueError.ts"
import type { NackOptions } from "./QueuePull.ts"
import type { Queues } from "./Queues.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * How a stream consumes. All of it has defaults.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** What failures and reports call it. Default: `stream`. */
  readonly name?: string | undefined
  /** Deliveries that are out and not settled at most. Default: 100. */
  readonly unsettled?: number | undefined
  /** Messages that are claimed ahead at most. Default: 500. */
  readonly prefetch?: number | undefined
  /** Which messages it wants. Default: all. */
  readonly filter?: HeaderFilter.HeaderFilter | undefined
}

/**
 * A message, and what may be said of it, once. It is told soon, and nobody waits for that; what is said after the end of the stream
 * changes nothing.
 *
 * @category models
 * @since 0.1.0
 */
export interface Delivery<out A> {
  readonly message: Message<A>
  /** It is done. */
  readonly ack: Effect.Effect<void>
  /** It failed: it is tried again, or given up. */
  readonly nack: (options: NackOptions) => Effect.Effect<void>
  /** It was not begun: it is there for others, and the try does not count. */
  readonly release: Effect.Effect<void>
  /** Not now: it comes back after a while, and the try does not count. */
  readonly snooze: (after: Duration.Input) => Effect.Effect<void>
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Messages as they come, the next one to begin whenever somebody takes one. It does not end by itself.
 *
 * @category constructors
 * @since 0.1.0
 */
export const deliveries = <A>(
  queue: Queue<A>,
  options: Options = {}
): Stream.Stream<Delivery<A>, QueueError, Queues | Postgres> =>
  Stream.unwrap(Effect.map(open(queue, options), (pull) => Stream.fromPull(Effect.succeed(pull))))

// ------------------------------------------------------------------------------------------------- implementation

const open = Effect.fnUntraced(function*<A>(queue: Queue<A>, options: Options) {
  const { filter, name = "stream", prefetch = 500, unsettled = 100 } = options
  const { consumer, stop } = yield* Life.start({ queue, name, size: 1, capacity: unsettled, prefetch, filter })
  const { failed, fetched, open } = yield* Judging.make<A, unknown>(consumer, queue)
  const out = new Set<Held>()
  const room = Signal.make()

  const settle = (held: Held, outcome: Outcome): void => {
    if (!out.delete(held)) return
    consumer.running--
    consumer.record(held, outcome)
    room.set()
  }

  const deliveryOf = (held: Held, message: Message<A>): Delivery<A> => {
    const { id } = held.claimed
    return {
      message,
      ack: Effect.sync(() => settle(held, done)),
      release: Effect.sync(() => settle(held, released)),
      snooze: (after) =>
        Effect.sync(() =>
          settle(held, {
            _tag: "Retried",
            retried: { id, after: Duration.fromInputUnsafe(after), failure: undefined }
          })
        ),
      nack: ({ after, giveUp, reason }) =>
        Effect.sync(() => {
          const error = giveUp === true ? new Handling.Reject({ reason }) : new Handling.Failed({ reason })
          const wait = after === undefined ? undefined : Duration.fromInputUnsafe(after)
          settle(held, failed(held, Cause.fail(error), wait))
        })
    }
  }

  /** From here on they are settled at the end, if nobody did. */
  const take = (all: ReadonlyArray<Held>): ReadonlyArray<Held> => {
    for (const held of all) out.add(held)
    consumer.running += all.length
    return all
  }

  const deliver = (held: Held): Effect.Effect<ReadonlyArray<Delivery<A>>> =>
    fetched(held).pipe(
      Effect.map((whole) => {
        const opened = open(whole)
        if (Result.isSuccess(opened)) return [deliveryOf(held, opened.success)]
        settle(held, opened.failure)
        return []
      }),
      Effect.catch((error) =>
        Effect.sync(() => {
          settle(held, failed(held, Cause.fail(error)))
          return []
        })
      )
    )

  const pull: Pull.Pull<Arr.NonEmptyReadonlyArray<Delivery<A>>, QueueError> = Effect.suspend(() => {
    if (out.size >= unsettled) return Effect.andThen(room.wait, pull)
    return Effect.flatMap(
      Effect.flatMap(consumer.next(take), (held) => Effect.map(Effect.forEach(held, deliver), (found) => found.flat())),
      (found): Pull.Pull<Arr.NonEmptyReadonlyArray<Delivery<A>>, QueueError> => {
        if (Arr.isReadonlyArrayNonEmpty(found)) return Effect.succeed(found)
        if (consumer.isOpen) return pull
        return consumer.refusal === undefined ? Cause.done() : Effect.fail(unavailable("claim")(consumer.refusal))
      }
    )
  })

  yield* Effect.addFinalizer((exit) => {
    for (const held of out) {
      settle(held, Exit.isSuccess(exit) ? released : failed(held, exit.cause))
    }
    return stop([])
  })
  return pull
})
