/**
 * Reading one's own writes: a write answers with its position, a read may wait until it shows that position.
 *
 * **Details**
 *
 * Every write answers with the header `Strata-Position`. A read takes it back as the query parameter `minPosition` or the
 * header `Strata-Min-Position`, and waits until the read model has reached it; after a bound it is answered with 503. When both
 * are given, the larger one counts.
 *
 * @since 0.1.0
 */
import * as Fact from "@strata/event-store/Fact"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

const digits = Schema.String.check(
  Schema.isPattern(/^(0|[1-9][0-9]{0,18})$/, { message: "Expected a position: digits" })
)

/** Positions are `bigint` in PostgreSQL. */
const maximum = 9223372036854775807n

/**
 * A position of the log. On the wire it is text, since a JSON number would lose digits.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Position: Schema.Codec<Fact.Position, string> = digits.pipe(
  Schema.decodeTo(
    Fact.Position.check(Schema.isLessThanOrEqualToBigInt(maximum)),
    SchemaTransformation.transform({ decode: (text) => BigInt(text), encode: String })
  ),
  Schema.annotateEncoded({
    identifier: "Position",
    description: "A position of the log, in digits",
    examples: ["42"]
  })
)

/**
 * The query parameter of a read.
 *
 * @category schemas
 * @since 0.1.0
 */
export const query = { minPosition: Schema.optionalKey(Position) }

/**
 * The header of a read.
 *
 * @category schemas
 * @since 0.1.0
 */
export const headers = { "strata-min-position": Schema.optionalKey(Position) }

/**
 * The header of a write's answer.
 *
 * @category schemas
 * @since 0.1.0
 */
export const answerHeaders = Schema.Struct({
  "strata-position": Position.annotate({ description: "Where the write can be read" })
})
