/**
 * Runs a handler on messages, one batch after the other.
 *
 * @since 0.1.0
 */
import * as Deadline from "@strata/resilience/bounds/Deadline"
import type * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { identity } from "effect/Function"
import * as Result from "effect/Result"
import type { Message } from "../Message.ts"
import type { Queue } from "../Queue.ts"
import * as StoredPayload from "../sending/StoredPayload.ts"
import type { Consumer } from "./Consumer.ts"
import { done, type Held, type Outcome } from "./Holdings.ts"
import * as Judging from "./Judging.ts"
import * as Tracing from "./Tracing.ts"

/**
 * What became of the messages of a batch, one for each in their order; nothing, when all of them are done.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcomes<E> = ReadonlyArray<Result.Result<unknown, E>> | void

/**
 * A handler of batches.
 *
 * @category models
 * @since 0.1.0
 */
export type Handler<in A, out E, out R> = (messages: ReadonlyArray<Message<A>>) => Effect.Effect<Outcomes<E>, E, R>

/**
 * `running` handles one batch after the other until the consumer stops. Any number of fibers may run it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*<A, E, R>(
  consumer: Consumer,
  queue: Queue<A>,
  handler: Handler<A, E, R>,
  classify: FailureClass.Classifier<E> | undefined
) {
  const { failed, fetched, open } = yield* Judging.make(consumer, queue, classify)
  const { metrics, now } = consumer.setting
  const traced = yield* Tracing.make(queue.name)

  const outcomeOf = (
    held: Held,
    whole: Exit.Exit<Outcomes<E>, E | Deadline.DeadlineExceeded>,
    index: number
  ): Outcome => {
    if (Exit.isFailure(whole)) return failed(held, whole.cause)
    const own = whole.value?.[index]
    return own === undefined || Result.isSuccess(own) ? done : failed(held, Cause.fail(own.failure))
  }

  /** Runs the handler, and writes down what became of each message, also when it is interrupted. */
  const run = (begun: ReadonlyArray<Held>, messages: ReadonlyArray<Message<A>>): Effect.Effect<void, never, R> => {
    const { timeout } = consumer.stored.settings
    const once = traced(begun, Effect.suspend(() => handler(messages)))
    const startedAt = consumer.endedAt ?? now()
    consumer.endedAt = undefined
    for (const { claimed, lease } of begun) {
      // How long it waited there, by the database's clock, and then here.
      if (claimed.attempts === 1) {
        metrics.waited.record((lease.claimedAt - Number(claimed.sentAt)) / 1e6 + (startedAt - lease.receivedAt) / 1000)
      }
    }
    consumer.running += begun.length
    return Effect.onExitPrimitive(
      Effect.exit(timeout === undefined ? once : Deadline.within(timeout)(once)),
      (exit) => {
        consumer.running -= begun.length
        const endedAt = now()
        consumer.endedAt = endedAt
        metrics.handled.record((endedAt - startedAt) / 1000)
        const whole = Exit.isSuccess(exit) ? exit.value : Exit.failCause(exit.cause)
        for (const [index, held] of begun.entries()) consumer.record(held, outcomeOf(held, whole, index))
        return undefined
      }
    )
  }

  const handle = (all: ReadonlyArray<Held>): Effect.Effect<void, never, R> => {
    const messages: Array<Message<A>> = []
    const begun = all.filter((held) => {
      const opened = open(held)
      if (Result.isSuccess(opened)) return messages.push(opened.success) > 0
      consumer.record(held, opened.failure)
      return false
    })
    return begun.length === 0 ? Effect.void : run(begun, messages)
  }

  /** With their payloads at hand; those whose payload could not be fetched have failed. */
  const fetchEach = (all: ReadonlyArray<Held>): Effect.Effect<ReadonlyArray<Held>> =>
    Effect.map(
      Effect.forEach(all, (held) =>
        fetched(held).pipe(
          (fetch) =>
            Effect.onExitPrimitive(fetch, (exit) => {
              if (Exit.isFailure(exit)) consumer.record(held, failed(held, exit.cause))
              return undefined
            }),
          Effect.matchCause({ onFailure: () => [], onSuccess: (held) => [held] })
        )),
      (held) => held.flat()
    )

  const isApart = ({ claimed }: Held) => StoredPayload.isApart(claimed.storedAt)

  const running: Effect.Effect<void, never, R> = Effect.flatMap(
    consumer.next(identity<ReadonlyArray<Held>>),
    (held) => {
      if (held.length === 0) return Effect.void
      const handled = held.some(isApart) ? Effect.flatMap(fetchEach(held), handle) : handle(held)
      return Effect.andThen(handled, running)
    }
  )
  return { running }
})
