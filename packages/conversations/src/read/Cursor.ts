/**
 * Cursors: where a page ends, as text that clients hand back unread.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as Schema from "effect/Schema"

/**
 * The cursor was not made by the same query.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidCursor extends Schema.TaggedError<InvalidCursor>("@strata/conversations/InvalidCursor")(
  "InvalidCursor",
  { cursor: Schema.String }
) {
  override get message() {
    return "The cursor does not belong to this list: start again without one"
  }
}

/**
 * A kind of cursor, whose key has a schema.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <Key>(schema: Schema.Codec<Key, unknown>) => {
  const json = Schema.fromJsonString(Schema.toCodecJson(schema))
  const decodeJson = Schema.decodeUnknownEffect(json)
  const encodeJson = Schema.encodeSync(json)
  return {
    encode: (key: Key): string => Base64Url.encode(encodeJson(key)),
    decode: (cursor: string): Effect.Effect<Key, InvalidCursor> =>
      Effect.fromResult(Base64Url.decodeString(cursor)).pipe(
        Effect.flatMap(decodeJson),
        Effect.mapError(() => new InvalidCursor({ cursor: cursor.slice(0, 100) }))
      )
  }
}
