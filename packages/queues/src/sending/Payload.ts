/**
 * What a message holds: a value as JSON, or bytes.
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Queue } from "../Queue.ts"
import type { PreparedPayload, Problem } from "./PreparedMessage.ts"

/**
 * Bytes of a payload that stands in the row of its message.
 *
 * @category constants
 * @since 0.1.0
 */
export const mostInline = 1_048_576

/**
 * A payload as it is stored.
 *
 * @category converting
 * @since 0.1.0
 */
export const encode = <A>(queue: Queue<A>, payload: A): Result.Result<PreparedPayload, Problem> => {
  const codec = queue.payload
  if (codec._tag === "Bytes") return Result.succeed({ data: null, bytes: codec.encode(payload), storedAt: null })
  const json = codec.encode(payload)
  if (Result.isFailure(json)) return Result.fail({ path: "payload", problem: json.failure.message })
  const text = Result.try((): string | undefined => JSON.stringify(json.success))
  if (Result.isFailure(text) || text.success === undefined) return Result.fail({ path: "payload", problem: "not JSON" })
  return text.success.length > mostInline
    ? Result.fail({ path: "payload", problem: `longer than ${mostInline} characters as JSON` })
    : Result.succeed({ data: text.success, bytes: null, storedAt: null })
}

/**
 * A payload as it was sent; what it cannot be otherwise.
 *
 * @category converting
 * @since 0.1.0
 */
export const decode = <A>(
  queue: Queue<A>,
  stored: { readonly data: unknown; readonly bytes: Uint8Array | null }
): Result.Result<A, UnreadablePayload> => {
  const codec = queue.payload
  if (codec._tag === "Json") {
    return Result.mapError(
      codec.decode(stored.data),
      ({ message }) => new UnreadablePayload({ queue: queue.name, problem: message })
    )
  }
  return stored.bytes === null
    ? Result.fail(new UnreadablePayload({ queue: queue.name, problem: "it is JSON, and not bytes" }))
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
