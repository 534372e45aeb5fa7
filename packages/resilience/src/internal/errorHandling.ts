/** Handles the failures of an effect as somebody decides about each of them. */
import * as Retrying from "@strata/postgres/Retrying"
import * as Timestamp from "@strata/postgres/Timestamp"
import type * as Cause from "effect/Cause"
import { Clock } from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import { Alerts } from "../alerts/Alerts.ts"
import * as Deadline from "../bounds/Deadline.ts"
import * as DeadLetters from "../errors/DeadLetters.ts"
import type { End, ErrorDecision, Failed } from "../errors/ErrorDecision.ts"
import * as PoisonDetection from "../errors/PoisonDetection.ts"
import * as FailureClass from "../retry/FailureClass.ts"

/** A failure after which nothing is tried any more. */
export interface Ended<E> {
  readonly cause: Cause.Cause<E>
  readonly failure: FailureClass.FailureClass
  readonly attempts: number
  readonly firstAt: Timestamp.Timestamp
  readonly failedAt: Timestamp.Timestamp
  readonly decision: End
}

/** Tries until it succeeds, or until a failure is the last one: then it fails with that, and says so before. */
export const tryAgain = Effect.fnUntraced(function*<A, E, R>(
  self: Effect.Effect<A, E, R>,
  { classify, decide, idempotent, onEnd, retried }: {
    readonly classify: FailureClass.Classifier<E> | undefined
    readonly idempotent: boolean | undefined
    readonly decide: (failed: Failed) => ErrorDecision
    /** What is tried again here, so that nothing below does so too. */
    readonly retried: Retrying.Above
    readonly onEnd: (ended: Ended<E>) => void
  }
): Effect.fn.Return<A, E, R> {
  const above = yield* Retrying.Retrying
  const marks = above === "nothing" || above === "harmless" && retried === "everything"
  const once = marks ? Effect.provideService(self, Retrying.Retrying, retried) : self
  const clock = yield* Clock
  const began = clock.monotonicTimeNanosUnsafe()
  const firstAt = yield* Timestamp.now
  for (let attempt = 1;; attempt++) {
    const exit = yield* Effect.exit(once)
    if (Exit.isSuccess(exit)) return exit.value
    const failure = FailureClass.classifyCause(exit.cause, classify)
    if (failure === undefined) return yield* Effect.failCause(exit.cause)
    // Time as it passed, whoever sets the clock meanwhile.
    const now = Timestamp.fromMicros(firstAt + (clock.monotonicTimeNanosUnsafe() - began) / 1000n)
    const random = yield* Random.next
    const remaining = Option.getOrUndefined(yield* Deadline.remaining)
    const decision = decide({ failure, attempt, random, idempotent, firstAt, now, remaining })
    if (decision._tag === "Retry" || decision._tag === "Postpone") {
      if (!(yield* Retrying.isOurs(failure._tag === "UnknownOutcome"))) return yield* Effect.failCause(exit.cause)
      yield* Effect.sleep(decision.delay)
      continue
    }
    onEnd({ cause: exit.cause, failure, attempts: attempt, firstAt, failedAt: now, decision })
    return yield* Effect.failCause(exit.cause)
  }
})

const decisions = Metric.counter("strata_error_decisions_total", {
  description: "Failures of handlers, by what was done about them",
  incremental: true
})

const endings = { DeadLetter: "put work aside", Ignore: "went on", Stop: "stopped" } as const

/** Does what was decided about the last failure. */
export const settle = Effect.fnUntraced(function*<E>(
  { attempts, cause, decision, failedAt, failure, firstAt }: Ended<E>,
  { handler, id, payload }: { readonly handler: string; readonly id: string; readonly payload?: unknown }
): Effect.fn.Return<Option.Option<never>, E | DeadLetters.DeadLetterNotKept, DeadLetters.DeadLetters | Alerts> {
  const fingerprint = PoisonDetection.fingerprint(cause)
  const labels = { handler, class: failure._tag, decision: decision._tag }
  yield* Metric.update(Metric.withAttributes(decisions, labels), 1)
  const summary = `Handler "${handler}" ${endings[decision._tag]} after a ${FailureClass.format(failure)} failure: ` +
    fingerprint
  for (const severity of decision.alerts) {
    const alerts = yield* Alerts
    yield* alerts.raise({
      name: "handler_failed",
      key: `handler_failed/${handler}/${fingerprint}`,
      severity,
      summary,
      details: { ...labels, id, attempts },
      expireAfter: "1 hour"
    })
  }
  if (decision._tag === "Stop") return yield* Effect.failCause(cause)
  yield* Effect.logWarning(summary, cause).pipe(Effect.annotateLogs({ id, attempts }))
  if (decision._tag === "DeadLetter") {
    const { reason } = decision
    const sink = yield* DeadLetters.DeadLetters
    yield* sink.offer(
      DeadLetters.make({ handler, id, payload, cause, failure, reason, attempts, firstAt, failedAt })
    )
  }
  return Option.none()
})
