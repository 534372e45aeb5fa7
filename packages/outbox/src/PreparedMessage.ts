/**
 * Messages made ready to be written: checked, with their defaults filled in.
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import {
  findHeaderProblem,
  isLabel,
  isText,
  labelExpected,
  longestDelay,
  type Problem,
  secondsOf
} from "./MessageFields.ts"
import type { NewMessage, Publication } from "./Publication.ts"

/**
 * A message as it is written.
 *
 * @category models
 * @since 0.1.0
 */
export interface PreparedMessage {
  readonly destination: Publication["destination"]
  readonly id: string
  readonly key: string | null
  readonly type: string
  readonly tenant: string
  /** For a topic, null for its own id. */
  readonly correlationId: string | null
  readonly causationId: string | null
  readonly traceparent: string | null
  /** JSON. */
  readonly headers: string | null
  /** JSON. */
  readonly data: string
  /** JSON. */
  readonly options: string | null
}

/**
 * What messages have where they do not say.
 *
 * @category models
 * @since 0.1.0
 */
export interface Defaults {
  readonly tenant: string
  readonly correlationId: string | null
  readonly causationId: string | null
  readonly traceparent: string | null
}

/**
 * Checks messages, and fills in what they do not say.
 *
 * @category constructors
 * @since 0.1.0
 */
export const prepare = (
  publications: ReadonlyArray<Publication>,
  defaults: Defaults,
  /** Ids for those that bring none: see `idsWanted`. */
  ids: ReadonlyArray<string>
): Result.Result<ReadonlyArray<PreparedMessage>, Problem> => {
  const prepared: Array<PreparedMessage> = []
  let nextId = 0
  for (let place = 0; place < publications.length; place++) {
    const { destination, messages, payload } = publications[place]!
    const refused = ({ path, problem }: Problem) =>
      Result.fail({ path: publications.length === 1 ? path : `publications[${place}].${path}`, problem })
    if (destination.name === "" || !isText(destination.name, 128)) {
      return refused({ path: "destination.name", problem: "expected 1 to 128 characters, none of them NUL" })
    }
    for (let index = 0; index < messages.length; index++) {
      const message = messages[index]!
      const problem = findProblem(message, destination.kind)
      const data = problem === undefined ? textOf(payload(index)) : Result.fail(problem)
      if (Result.isFailure(data)) {
        const { failure } = data
        return refused({ path: `messages[${index}].${failure.path}`, problem: failure.problem })
      }
      const id = message.id ?? ids[nextId++]!
      const correlationId = message.correlationId ?? defaults.correlationId
      prepared.push({
        destination,
        id,
        key: message.key ?? null,
        type: message.type ?? destination.name,
        tenant: message.tenant ?? defaults.tenant,
        correlationId: destination.kind === "topic" && correlationId === id ? null : correlationId,
        causationId: message.causationId ?? defaults.causationId,
        traceparent: defaults.traceparent,
        headers: message.headers === undefined ? null : JSON.stringify(message.headers),
        data: data.success,
        options: optionsOf(message)
      })
    }
  }
  return Result.succeed(prepared)
}

/**
 * How many messages bring no id.
 *
 * @category getters
 * @since 0.1.0
 */
export const idsWanted = (publications: ReadonlyArray<Publication>): number =>
  publications.reduce(
    (sum, { messages }) => messages.reduce((sum, { id }) => id === undefined ? sum + 1 : sum, sum),
    0
  )

/** Bytes of a payload as JSON, at most. */
const largest = 1_048_576

const textOf = (json: ReturnType<Publication["payload"]>): Result.Result<string, Problem> => {
  if (Result.isFailure(json)) return Result.fail({ path: "payload", problem: json.failure.message })
  const text = Result.try({ try: (): string | undefined => JSON.stringify(json.success), catch: String })
  if (Result.isFailure(text)) return Result.fail({ path: "payload", problem: `not JSON: ${text.failure}` })
  if (text.success === undefined) return Result.fail({ path: "payload", problem: "not JSON" })
  // No character of a text has more than three bytes.
  return 3 * text.success.length > largest && utf8.encode(text.success).length > largest
    ? Result.fail({ path: "payload", problem: `expected at most ${largest} bytes as JSON` })
    : Result.succeed(text.success)
}

const utf8 = new TextEncoder()

const optionsOf = ({ delay, priority }: Omit<NewMessage<unknown>, "payload">): string | null =>
  delay === undefined && priority === undefined
    ? null
    : JSON.stringify({ priority, delay: delay === undefined ? undefined : secondsOf(delay) })

// --------------------------------------------------------------------------------------------------------- checks

/** What names something. */
const labels = ["key", "type", "tenant", "correlationId", "causationId"] as const

const findProblem = (
  message: Omit<NewMessage<unknown>, "payload">,
  kind: "topic" | "queue"
): Problem | undefined => {
  const { delay, headers, id, priority } = message
  if (id !== undefined && !uuid.test(id)) return { path: "id", problem: "expected a UUID" }
  if (kind === "queue" && id !== undefined) return { path: "id", problem: "a queue gives its messages ids of its own" }
  if (kind === "topic" && priority !== undefined) {
    return { path: "priority", problem: "a topic has none: what it holds is read in order" }
  }
  if (kind === "topic" && delay !== undefined) {
    return { path: "delay", problem: "a topic has none: what it holds is read in order" }
  }
  if (priority !== undefined && (!Number.isInteger(priority) || priority < 0 || priority > 10)) {
    return { path: "priority", problem: "expected a whole number from 0 to 10" }
  }
  const seconds = delay === undefined ? 0 : secondsOf(delay)
  if (seconds === undefined || seconds < 0 || seconds > longestDelay) {
    return { path: "delay", problem: "expected a time of at most ten years" }
  }
  for (const path of labels) {
    const label = message[path]
    if (label !== undefined && !isLabel(label)) return { path, problem: labelExpected }
  }
  return headers === undefined ? undefined : findHeaderProblem(headers)
}

const uuid = /^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/i
