/**
 * Statements without which a worker cannot go on: they are repeated as long as the database cannot do them.
 *
 * @since 0.1.0
 */
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import type * as Effect from "effect/Effect"
import type { Policies } from "../QueuePolicies.ts"

/**
 * Again and again while the database is not there, or its disk is full. What it refuses for good fails.
 *
 * @category combinators
 * @since 0.1.0
 */
export const patiently = (
  { reconnect }: Policies
): <A, E, R>(statement: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> =>
  RetryPolicy.retry({ policy: reconnect, idempotent: true, classify })

/** Somebody will make room on a disk that is full. */
const classify: FailureClass.Classifier = (error) => {
  const found = FailureClass.classify(error)
  return found._tag === "Fatal" ? FailureClass.transient : found
}
