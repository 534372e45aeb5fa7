/**
 * Idempotency keys: a write that is repeated with its key and body is carried out once and answered with the first answer.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * 8 to 255 printable ASCII characters, unique per tenant; a UUID is a good one.
 *
 * @category schemas
 * @since 0.1.0
 */
export const IdempotencyKey = Schema.String.check(
  Schema.isPattern(/^[\x20-\x7e]{8,255}$/, { message: "Expected 8 to 255 printable ASCII characters" })
).annotate({
  identifier: "IdempotencyKey",
  description: "The same key and body gets the first answer, the same key and another body 422"
})

/**
 * The header of a write.
 *
 * @category schemas
 * @since 0.1.0
 */
export const headers = { "idempotency-key": Schema.optionalKey(IdempotencyKey) }
