/**
 * Works on the messages of a queue.
 *
 * **When to use**
 *
 * `layer` where a program runs workers, `run` where a fiber of its own is wanted.
 *
 * **Details**
 *
 * - Messages are claimed in batches under a lease, and renewed while the worker lives. What is done is told in batches too.
 *   After a crash the lease runs out, and others get what was left.
 * - Of what it holds the next to begin goes by class and tenant, as `FairQueue` of the resilience package has it: the classes of priorities by
 *   their weights, the tenants of a class in turn, and there the most urgent first and then as they came.
 * - A message that is more urgent than all that is held is claimed though there is enough, and takes the place of one of the least
 *   urgent, which is given back before it has begun: somebody else may be free to do it.
 * - A handler that fails is tried again by the queue's retry policy, with the time stored; in the end the message is a dead letter.
 *   `Handling.Snooze` puts it off, `Handling.Reject` gives it up.
 * - What it does is measured (see `QueueMetrics`), and a handler runs in the trace of who sent its message.
 * - When the scope closes the worker gives back what it has not begun, waits for what it runs, and tells what became of it.
 *
 * **Gotchas**
 *
 * At least once: a message whose handler succeeded is handled again when the worker dies before that was told. `Inbox` makes the
 * effect happen once.
 *
 * What a worker begins is fair; what it claims is the most urgent there is, and of that the oldest. So tenants and classes share
 * what is held, and who has sent a lot before keeps others waiting as long as `prefetch` has room for nothing else.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import type * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as HeaderFilter from "./consuming/HeaderFilter.ts"
import * as Life from "./consuming/Life.ts"
import * as Running from "./consuming/Running.ts"
import type { Message } from "./Message.ts"
import type { Queue } from "./Queue.ts"
import type { QueueError } from "./QueueError.ts"
import type { Queues } from "./Queues.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * How a worker works. All of it has defaults.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<in E = unknown> {
  /** What failures and reports call it. Default: `worker`. */
  readonly name?: string | undefined
  /** Messages handled at once. Default: 10. */
  readonly concurrency?: number | undefined
  /** Messages that are claimed ahead at most. Default: 1,000. */
  readonly prefetch?: number | undefined
  /** Which messages it wants. Default: all. */
  readonly filter?: HeaderFilter.HeaderFilter | undefined
  /** Tells the class of a failure. Default: `Handling.classify`. */
  readonly classify?: FailureClass.Classifier<E> | undefined
}

/**
 * What became of the messages of a batch, one for each in their order; nothing, when all of them are done.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcomes<E> = Running.Outcomes<E>

/**
 * Works until it is interrupted.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = <A, E, R>(
  queue: Queue<A>,
  handler: (message: Message<A>) => Effect.Effect<unknown, E, R>,
  options: Options<E> = {}
): Effect.Effect<never, QueueError, R | Queues | Postgres> =>
  Effect.scoped(Effect.andThen(start(queue, one(handler), 1, options), Effect.never))

/**
 * Works in batches until it is interrupted: the handler gets as many messages as are there, at most `size`. Where it fails, all of
 * them have failed.
 *
 * @category constructors
 * @since 0.1.0
 */
export const runBatches = <A, E, R>(
  queue: Queue<A>,
  handler: (messages: ReadonlyArray<Message<A>>) => Effect.Effect<Outcomes<E>, E, R>,
  options: Options<E> & { readonly size: number }
): Effect.Effect<never, QueueError, R | Queues | Postgres> =>
  Effect.scoped(Effect.andThen(start(queue, handler, options.size, options), Effect.never))

/**
 * Works as long as the layer is there.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <A, E, R>(
  queue: Queue<A>,
  handler: (message: Message<A>) => Effect.Effect<unknown, E, R>,
  options: Options<E> = {}
): Layer.Layer<never, QueueError, Exclude<R, Scope.Scope> | Queues | Postgres> =>
  Layer.effectDiscard(start(queue, one(handler), 1, options))

/**
 * Works in batches as long as the layer is there. See `runBatches`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBatches = <A, E, R>(
  queue: Queue<A>,
  handler: (messages: ReadonlyArray<Message<A>>) => Effect.Effect<Outcomes<E>, E, R>,
  options: Options<E> & { readonly size: number }
): Layer.Layer<never, QueueError, Exclude<R, Scope.Scope> | Queues | Postgres> =>
  Layer.effectDiscard(start(queue, handler, options.size, options))

/** A handler of one message, for batches of one. */
const one =
  <A, E, R>(handler: (message: Message<A>) => Effect.Effect<unknown, E, R>) =>
  (messages: ReadonlyArray<Message<A>>): Effect.Effect<void, E, R> => Effect.asVoid(handler(messages[0]!))

// ------------------------------------------------------------------------------------------------- implementation

/** Starts a worker that works until the scope closes. */
const start = Effect.fnUntraced(function*<A, E, R>(
  queue: Queue<A>,
  handler: Running.Handler<A, E, R>,
  size: number,
  options: Options<E>
) {
  const { classify, concurrency = 10, filter, name = "worker", prefetch = 1000 } = options
  const { consumer, stop } = yield* Life.start({ queue, name, size, capacity: concurrency * size, prefetch, filter })
  const { running } = yield* Running.make(consumer, queue, handler, classify)
  const runners = yield* Effect.forEach(
    Array.from({ length: concurrency }),
    () => Effect.forkScoped(running, { startImmediately: true })
  )
  yield* Effect.addFinalizer(() => stop(runners))
})
