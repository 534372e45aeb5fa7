/**
 * A message made ready to be written: checked, with its defaults filled in and its payload as JSON text or bytes.
 *
 * @since 0.1.0
 */
import {
  findHeaderProblem,
  isLabel,
  labelExpected,
  longestDelay,
  type Problem,
  secondsOf
} from "@strata/outbox/MessageFields"
import * as Duration from "effect/Duration"
import * as Result from "effect/Result"
import type { NewMessage, State, Unique } from "../Message.ts"
import type { LargePayload } from "./StoredPayload.ts"

/**
 * A message as it is written.
 *
 * @category models
 * @since 0.1.0
 */
export interface PreparedMessage {
  readonly queue: number
  readonly priority: number
  readonly tenant: string
  readonly type: string
  readonly key: string | null
  readonly correlationId: string | null
  readonly causationId: string | null
  readonly traceparent: string | null
  /** JSON. */
  readonly headers: string | null
  /** JSON. */
  readonly data: string | null
  readonly bytes: Uint8Array | null
  /** The place of the payload: see `StoredPayload`. */
  readonly storedAt: string | null
  /** Too large for a row, and not stored yet. */
  readonly large: LargePayload | null
  /** Seconds; 0 for at once. */
  readonly delay: number
  readonly unique: PreparedUnique | null
}

/**
 * A unique key as it is judged.
 *
 * @category models
 * @since 0.1.0
 */
export interface PreparedUnique {
  readonly key: string
  readonly states: ReadonlyArray<State>
  /** Seconds. */
  readonly window: number | null
  readonly replaces: boolean
}

/** What the caller does not say in the message. */
export interface Surroundings {
  readonly queue: number
  readonly queueName: string
  readonly traceparent: string | null
}

/** What the payload became. */
export type PreparedPayload = Pick<PreparedMessage, "data" | "bytes" | "storedAt" | "large">

/**
 * Checks a message, and fills in what it does not say.
 *
 * @category constructors
 * @since 0.1.0
 */
export const prepare = (
  message: Omit<NewMessage<unknown>, "payload">,
  payload: PreparedPayload,
  { queue, queueName, traceparent }: Surroundings
): Result.Result<PreparedMessage, Problem> => {
  const { causationId, correlationId, delay, headers, key, priority = 5, tenant = "default", unique } = message
  const seconds = delay === undefined ? 0 : secondsOf(delay)
  const problem = findProblem(message, priority, seconds)
  if (problem !== undefined) return Result.fail(problem)
  return Result.succeed({
    queue,
    priority,
    tenant,
    type: message.type ?? queueName,
    key: key ?? null,
    correlationId: correlationId ?? null,
    causationId: causationId ?? null,
    traceparent,
    headers: headers === undefined ? null : JSON.stringify(headers),
    ...payload,
    delay: seconds ?? 0,
    unique: unique === undefined ? null : prepareUnique(unique)
  })
}

/**
 * Characters and bytes of a message, about as many bytes as it takes in memory.
 *
 * @category getters
 * @since 0.1.0
 */
export const sizeOf = ({ bytes, data, headers, large }: PreparedMessage): number =>
  (data?.length ?? 0) + (bytes?.length ?? 0) + (headers?.length ?? 0) + (large?.content.length ?? 0)

const prepareUnique = (
  { during = ["waiting", "later", "running"], key, onConflict, window }: Unique
): PreparedUnique => ({
  key,
  states: during,
  window: window === undefined ? null : Duration.toSeconds(Duration.fromInputUnsafe(window)),
  replaces: onConflict === "replace"
})

// --------------------------------------------------------------------------------------------------------- checks

const findProblem = (
  { causationId, correlationId, headers, key, tenant, type, unique }: Omit<NewMessage<unknown>, "payload">,
  priority: number,
  delay: number | undefined
): Problem | undefined => {
  if (!Number.isInteger(priority) || priority < 0 || priority > 10) {
    return { path: "priority", problem: "expected a whole number from 0 to 10" }
  }
  if (delay === undefined || delay < 0 || delay > longestDelay) {
    return { path: "delay", problem: "expected a time of at most ten years" }
  }
  const labels = { type, tenant, key, correlationId, causationId, "unique.key": unique?.key }
  for (const [path, label] of Object.entries(labels)) {
    if (label !== undefined && !isLabel(label)) return { path, problem: labelExpected }
  }
  return (headers === undefined ? undefined : findHeaderProblem(headers)) ??
    (unique === undefined ? undefined : findUniqueProblem(unique))
}

const findUniqueProblem = ({ during, window }: Unique): Problem | undefined => {
  const seconds = window === undefined ? undefined : secondsOf(window)
  if (window !== undefined && (seconds === undefined || seconds <= 0 || seconds > longestDelay)) {
    return { path: "unique.window", problem: "expected a time above zero, of at most ten years" }
  }
  if (during?.length === 0) return { path: "unique.during", problem: "expected at least one state" }
  return during?.includes("done") === true && window === undefined
    ? { path: "unique.window", problem: "expected with the state done, or the key would be taken for ever" }
    : undefined
}
