/**
 * What a message holds: a value as JSON, or bytes.
 *
 * @since 0.1.0
 */
import type { Problem } from "@strata/outbox/MessageFields"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Queue } from "../Queue.ts"
import type { Policies } from "../QueuePolicies.ts"
import type { PreparedPayload } from "./PreparedMessage.ts"
import * as StoredPayload from "./StoredPayload.ts"

/** How much of it stands in a row, and how much is sent at all. */
type Bounds = Pick<Policies, "inline" | "largest">

/** The client takes no row that is longer than 16 MiB. */
const mostInline = 8_388_608

/**
 * A payload as it is stored.
 *
 * @category converting
 * @since 0.1.0
 */
export const encode = <A>(queue: Queue<A>, payload: A, bounds: Bounds): Result.Result<PreparedPayload, Problem> => {
  const codec = queue.payload
  if (codec._tag === "Bytes") return encodeBytes(codec.encode(payload), bounds)
  const json = codec.encode(payload)
  return Result.isFailure(json)
    ? Result.fail({ path: "payload", problem: json.failure.message })
    : encodeJson(json.success, bounds)
}

/**
 * A value as JSON, as it is stored.
 *
 * @category converting
 * @since 0.1.0
 */
export const encodeJson = (json: unknown, bounds: Bounds): Result.Result<PreparedPayload, Problem> => {
  const text = Result.try({ try: (): string | undefined => JSON.stringify(json), catch: String })
  if (Result.isFailure(text)) return Result.fail({ path: "payload", problem: `not JSON: ${text.failure}` })
  return text.success === undefined
    ? Result.fail({ path: "payload", problem: "not JSON" })
    : encodeText(text.success, bounds)
}

/**
 * JSON text, as it is stored.
 *
 * @category converting
 * @since 0.1.0
 */
export const encodeText = (text: string, bounds: Bounds): Result.Result<PreparedPayload, Problem> => {
  const inline = Math.min(bounds.inline, bounds.largest, mostInline)
  // No character of a text has more than three bytes.
  if (3 * text.length <= inline) return Result.succeed(textInRow(text))
  if (text.length > bounds.largest) return tooLarge(bounds)
  const content = utf8.encode(text)
  if (content.length <= inline) return Result.succeed(textInRow(text))
  return content.length > bounds.largest
    ? tooLarge(bounds)
    : Result.succeed({ ...nothing, large: { kind: "json", content } })
}

const textInRow = (text: string): PreparedPayload => ({
  ...nothing,
  data: text,
  storedAt: StoredPayload.inRow(text.length)
})

/**
 * Bytes, as they are stored.
 *
 * @category converting
 * @since 0.1.0
 */
export const encodeBytes = (bytes: Uint8Array, bounds: Bounds): Result.Result<PreparedPayload, Problem> => {
  if (bytes.length > bounds.largest) return tooLarge(bounds)
  return Result.succeed(
    bytes.length <= Math.min(bounds.inline, mostInline)
      ? { ...nothing, bytes, storedAt: StoredPayload.inRow(bytes.length) }
      : { ...nothing, large: { kind: "bytes", content: bytes } }
  )
}

/**
 * No payload at all.
 *
 * @category constants
 * @since 0.1.0
 */
export const nothing: PreparedPayload = { data: null, bytes: null, storedAt: null, large: null }

const tooLarge = ({ largest }: Bounds) =>
  Result.fail({ path: "payload", problem: `expected at most ${largest} bytes, as JSON or as they are` })

const utf8 = new TextEncoder()

/**
 * A payload as it was sent; what it cannot be otherwise.
 *
 * @category converting
 * @since 0.1.0
 */
export const decode = <A>(queue: Queue<A>, stored: StoredPayload.Read): Result.Result<A, UnreadablePayload> => {
  const unreadable = (problem: string) => new UnreadablePayload({ queue: queue.name, problem })
  if (StoredPayload.isApart(stored.storedAt)) {
    return Result.fail(unreadable(`it is not in the store, under ${stored.storedAt}`))
  }
  const codec = queue.payload
  if (codec._tag === "Json") {
    return Result.mapError(codec.decode(stored.data), ({ message }) => unreadable(message))
  }
  return stored.bytes === null
    ? Result.fail(unreadable("it is JSON, and not bytes"))
    : Result.succeed(codec.decode(stored.bytes))
}

/**
 * The payload of a message is not what its queue says. Repeating does not help.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnreadablePayload extends Schema.TaggedError<UnreadablePayload>()("UnreadablePayload", {
  queue: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `The payload of a message of queue ${this.queue} cannot be read: ${this.problem}`
  }
}
