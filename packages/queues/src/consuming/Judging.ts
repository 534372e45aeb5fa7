/**
 * Judges messages by the settings of their queue: whether one may begin, and what becomes of one that failed.
 *
 * @since 0.1.0
 */
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import { type Message, messageOf } from "../Message.ts"
import { PayloadStoreError } from "../PayloadStore.ts"
import type { Queue } from "../Queue.ts"
import * as Payload from "../sending/Payload.ts"
import * as StoredPayload from "../sending/StoredPayload.ts"
import type { Consumer } from "./Consumer.ts"
import * as Handling from "./Handling.ts"
import { type Held, type Outcome, released } from "./Holdings.ts"

/**
 * A judge for the messages of a consumer.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A, E>(
  consumer: Consumer,
  queue: Queue<A>,
  classify: FailureClass.Classifier<E> = Handling.classify
) =>
  Effect.map(Random.Random, (random) => {
    const worker = consumer.setting.name

    /** That its time was up, or its payload not to be had now, says no more of a message than that it was not done. */
    const classifier = (error: E | Deadline.DeadlineExceeded | PayloadStoreError): FailureClass.FailureClass =>
      error instanceof Deadline.DeadlineExceeded || error instanceof PayloadStoreError
        ? FailureClass.transient
        : classify(error)

    return {
      /** With its payload at hand. */
      fetched: (held: Held): Effect.Effect<Held, PayloadStoreError> =>
        Effect.map(
          StoredPayload.fetch(consumer.setting.payloads, held.claimed),
          (claimed) => ({ claimed, lease: held.lease })
        ),

      /** The message, if it is to be handled, or what becomes of it at once. */
      open: ({ claimed }: Held): Result.Result<Message<A>, Outcome> => {
        const { maxAge } = consumer.stored.settings
        if (maxAge !== undefined && claimed.attempts === 1 && Handling.isOlder(claimed, maxAge)) {
          return Result.fail({ _tag: "Dead", dead: Handling.expired(claimed, maxAge, worker) })
        }
        return Result.mapBoth(Payload.decode(queue, claimed), {
          onFailure: (failure) => ({
            _tag: "Dead",
            dead: Handling.unreadable(claimed.id, claimed.attempts, failure, worker)
          }),
          onSuccess: (payload) => messageOf(queue.name, claimed, payload)
        })
      },

      /** What becomes of a message whose handler failed; after so long, where somebody says that. */
      failed: (
        { claimed }: Held,
        cause: Cause.Cause<E | Deadline.DeadlineExceeded | PayloadStoreError>,
        after?: Duration.Duration
      ): Outcome => {
        const { attempts, claimedAt, firstAt, id } = claimed
        const { maxAttempts, retry } = consumer.stored.settings
        const judged = Handling.judge(cause, {
          id,
          attempt: attempts,
          firstAt,
          now: claimedAt,
          worker,
          random: random.nextDoubleUnsafe()
        }, { classifier, retry, maxAttempts: maxAttempts ?? retry.attempts, after })
        if (judged === undefined) return released
        return "dead" in judged ? { _tag: "Dead", dead: judged.dead } : { _tag: "Retried", retried: judged.retried }
      }
    }
  })
