/**
 * What a handler may say of a message beside that it is done, and what becomes of one that failed.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as PoisonDetection from "@strata/resilience/errors/PoisonDetection"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { Claimed, Dead, Retried } from "./Claims.ts"

/**
 * Not now: the message comes back after a while, and the try does not count.
 *
 * @category errors
 * @since 0.1.0
 */
export class Snooze extends Schema.TaggedError<Snooze>()("Snooze", { after: Schema.Duration }) {}

/**
 * Puts a message off.
 *
 * @category constructors
 * @since 0.1.0
 */
export const snooze = (after: Duration.Input): Snooze => new Snooze({ after: Duration.fromInputUnsafe(after) })

/**
 * Never: the message is given up, whatever tries it has left.
 *
 * @category errors
 * @since 0.1.0
 */
export class Reject extends Schema.TaggedError<Reject>()("Reject", { reason: Schema.String }) {
  override get message(): string {
    return this.reason
  }
}

/**
 * It failed, in the words of whoever tried.
 *
 * @category errors
 * @since 0.1.0
 */
export class Failed extends Schema.TaggedError<Failed>()("Failed", { reason: Schema.String }) {
  override get message(): string {
    return this.reason
  }
}

/**
 * The class of what a handler fails with, unless a worker is given another classifier: as `FailureClass.classify`, but what
 * nobody knows is transient. A message has so many tries, so nothing is repeated for ever.
 *
 * @category classifiers
 * @since 0.1.0
 */
export const classify: FailureClass.Classifier = (error) => {
  const found = FailureClass.classify(error)
  return found._tag === "Permanent" ? FailureClass.transient : found
}

/**
 * What is known of a try that failed.
 *
 * @category models
 * @since 0.1.0
 */
export interface FailedTry {
  readonly id: bigint
  readonly attempt: number
  readonly firstAt: Timestamp.Timestamp
  readonly now: Timestamp.Timestamp
  readonly worker: string
  /** From 0 to below 1. */
  readonly random: number
}

/**
 * What becomes of a message whose handler failed; undefined when the handler was interrupted, which says nothing of it.
 *
 * @category getters
 * @since 0.1.0
 */
export const judge = <E>(
  cause: Cause.Cause<E>,
  { attempt, firstAt, id, now, random, worker }: FailedTry,
  { after, classifier, maxAttempts, retry }: {
    readonly classifier: FailureClass.Classifier<E>
    readonly retry: RetryPolicy.RetryPolicy
    readonly maxAttempts: number
    /** How long to wait, where somebody says that: then the policy says only whether there is another try. */
    readonly after?: Duration.Duration | undefined
  }
): { readonly retried: Retried } | { readonly dead: Dead } | undefined => {
  if (Cause.hasInterruptsOnly(cause)) return undefined
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  if (error instanceof Snooze) return { retried: { id, after: error.after, failure: undefined } }
  const failure = { attempt, worker, ...described(cause) }
  const dead = (reason: string) => ({
    dead: { id, reason, fingerprint: storable(PoisonDetection.fingerprint(cause), 1024), failure }
  })
  if (error instanceof Reject) return dead("rejected")
  const failureClass = FailureClass.classifyCause(cause, classifier) ?? FailureClass.transient
  // A defect may be of the moment too; that it is one is told by its tries.
  const repeated = failureClass._tag === "Fatal" ? FailureClass.transient : failureClass
  const waiting = after === undefined ? retry : { ...retry, kind: "fixed" as const, base: Duration.zero }
  const next = attempt >= maxAttempts
    ? Option.none<Duration.Duration>()
    : RetryPolicy.nextAttempt({ ...waiting, attempts: maxAttempts }, {
      attempt,
      failure: repeated,
      idempotent: true,
      random,
      firstAt,
      now
    })
  return Option.match(next, {
    onSome: (wait) => ({ retried: { id, after: after ?? wait, failure } }),
    onNone: () => dead(failureClass._tag === "Permanent" ? "permanent" : attempt >= maxAttempts ? "attempts" : "time")
  })
}

/**
 * What becomes of a message whose payload is not what its queue says.
 *
 * @category getters
 * @since 0.1.0
 */
export const unreadable = (id: bigint, attempt: number, error: Error, worker: string): Dead => {
  const cause = Cause.fail(error)
  return {
    id,
    reason: "unreadable",
    fingerprint: storable(PoisonDetection.fingerprint(cause), 1024),
    failure: { attempt, worker, ...described(cause) }
  }
}

/**
 * True for a message that had waited for longer when it was claimed.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isOlder = ({ claimedAt, sentAt }: Claimed, age: Duration.Duration): boolean =>
  claimedAt - sentAt > BigInt(Math.ceil(Duration.toMillis(age) * 1000))

/**
 * What becomes of a message that waited for too long.
 *
 * @category getters
 * @since 0.1.0
 */
export const expired = ({ attempts, id }: Claimed, age: Duration.Duration, worker: string): Dead => ({
  id,
  reason: "expired",
  fingerprint: "Expired",
  failure: {
    attempt: attempts,
    worker,
    type: "Expired",
    message: `It waited for more than ${Duration.format(age)}`
  }
})

/** Characters of an error that are kept. */
const longest = 8192

/** The name and the text of what went wrong, as PostgreSQL can store them. */
const described = (cause: Cause.Cause<unknown>): { readonly type: string; readonly message: string } => {
  const error = Cause.squash(cause)
  const type = Predicate.hasProperty(error, "_tag") && Predicate.isString(error._tag)
    ? error._tag
    : Predicate.isError(error)
    ? error.name
    : typeof error
  return { type: storable(type, 256), message: storable(Cause.pretty(cause), longest) }
}

const storable = (text: string, most: number): string => text.slice(0, most).replaceAll("\0", "\uFFFD").toWellFormed()
