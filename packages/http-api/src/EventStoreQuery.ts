/**
 * Questions on two time axes, as query parameters: moments of what was known, points of the plane, types, order.
 *
 * @since 0.1.0
 */
import * as Fact from "@strata/event-store/Fact"
import type * as FactQuery from "@strata/event-store/FactQuery"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as Consistency from "./Consistency.ts"
import * as Paging from "./Paging.ts"
import { JsonObject, label, Text } from "./Text.ts"

/**
 * The id of a stream, `<category>-<id>`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const StreamId = Text.check(
  Schema.isPattern(/^[^-]+-/, { message: "Expected <category>-<id>" }),
  Schema.isMaxLength(512)
).pipe(Schema.decodeTo(Fact.StreamId))

const Moment = Schema.Union([
  Schema.Struct({ position: Schema.toType(Consistency.Position) }),
  Schema.Struct({ time: Schema.toType(Timestamp.Timestamp) })
])

const Place = Schema.Struct({
  validAt: Schema.optional(Schema.toType(Timestamp.Timestamp)),
  knownAt: Schema.optional(Moment)
})

/**
 * A moment of what was known: a time, or a position in digits.
 *
 * @category schemas
 * @since 0.1.0
 */
export const KnownAt: Schema.Codec<FactQuery.KnownAt, string> = Schema.String.pipe(
  Schema.decodeTo(
    Moment,
    SchemaTransformation.transformEffect({
      decode: (text: string, options) =>
        Effect.mapError(Effect.fromOption(readMoment(text)), () =>
          new SchemaIssue.InvalidValue(
            { message: "Expected a position in digits, or a time in ISO-8601 with a zone" },
            text,
            options
          )),
      encode: (moment) => Effect.succeed(writeMoment(moment))
    })
  ),
  Schema.annotateEncoded({
    identifier: "KnownAt",
    description: "A moment of what was known: a time in ISO-8601, or a position in digits",
    examples: ["2026-01-31T10:00:00.000000Z", "42"]
  })
)

/**
 * A point of the plane, `<valid>,<known>`: what was known at the second to hold at the first. Either may be `now`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Point: Schema.Codec<FactQuery.Point, string> = Schema.String.pipe(
  Schema.decodeTo(
    Place,
    SchemaTransformation.transformEffect({
      decode: (text: string, options) =>
        Effect.mapError(Effect.fromOption(readPoint(text)), () =>
          new SchemaIssue.InvalidValue(
            { message: "Expected <valid>,<known>: a time or now, then a time, a position or now" },
            text,
            options
          )),
      encode: ({ knownAt, validAt }) =>
        Effect.succeed(
          `${validAt === undefined ? "now" : Timestamp.format(validAt)},${
            knownAt === undefined ? "now" : writeMoment(knownAt)
          }`
        )
    })
  ),
  Schema.annotateEncoded({
    identifier: "PointOfPlane",
    description: "`<valid>,<known>`: a time or `now`, then a time, a position or `now`",
    examples: ["2026-01-31T00:00:00Z,now", "now,42"]
  })
)

/**
 * The orders an answer may have: by position or by the beginning of validity, upwards unless said otherwise.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Sort = Schema.Literals([
  "position",
  "position,asc",
  "position,desc",
  "validity",
  "validity,asc",
  "validity,desc"
]).annotate({ description: "Default: position,asc" })

const Version = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2_147_483_647 }))

const oneType = String.raw`(?:[^\\,]|\\[\\,])+`

const typesOf = new RegExp(oneType, "g")

/** Types as texts, each of one or several with commas between them. */
const EventTypes = Schema.Array(Text.check(
  Schema.isPattern(new RegExp(`^${oneType}(,${oneType})*$`, "u"), {
    message: "Expected types with commas between them, and a backslash before each comma or backslash of a type"
  }),
  Schema.isMaxLength(8_192)
)).pipe(
  Schema.decodeTo(
    Schema.Array(Schema.String),
    SchemaTransformation.transform<ReadonlyArray<string>, ReadonlyArray<string>>({
      decode: (texts) =>
        texts.flatMap((text) => text.match(typesOf) ?? []).map((type) => type.replaceAll(/\\(.)/g, "$1")),
      encode: (types) => types.map((type) => type.replaceAll(/[\\,]/g, "\\$&"))
    })
  ),
  Schema.annotateEncoded({
    description:
      "Any of these, comma separated or repeated; `*` stands for one segment between dots. A comma or a backslash "
      + "of a type itself has a backslash before it"
  })
)

/**
 * Top-level metadata that must be equal, as a JSON object.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Metadata = Text.check(Schema.isMaxLength(8_192)).pipe(
  Schema.decodeTo(
    Schema.fromJsonString(JsonObject.check(Schema.isMinProperties(1), Schema.isMaxProperties(16)))
  ),
  Schema.annotateEncoded({
    identifier: "MetadataFilter",
    description: "Top-level metadata that must be equal, 1 to 16 of them, as a JSON object",
    examples: ["{\"region\":\"eu\"}"]
  })
)

/**
 * What must stand in an event's data, as a JSON array.
 *
 * @category schemas
 * @since 0.1.0
 */
export const DataConditions = Text.check(Schema.isMaxLength(8_192)).pipe(
  Schema.decodeTo(
    Schema.fromJsonString(Schema.Array(Schema.Struct({
      path: Schema.String,
      is: Schema.Literals(["equal", "above", "atLeast", "below", "atMost"]),
      value: Schema.Json
    })))
  ),
  Schema.annotateEncoded({
    identifier: "DataConditions",
    description:
      "What must stand in the data, 1 to 16 conditions, as a JSON array: `path` is a JSON Pointer, `is` one of "
      + "equal, above, atLeast, below, atMost, of which all but the first compare numbers with numbers and texts with texts",
    examples: ["[{\"path\":\"/customer/tier\",\"is\":\"equal\",\"value\":\"gold\"}]"]
  })
)

/**
 * Query parameters that say which events, whatever the time axes say. `streamId` and `aggregateId` are the same.
 *
 * @category schemas
 * @since 0.1.0
 */
export const filter = {
  streamId: Schema.optionalKey(StreamId),
  aggregateId: Schema.optionalKey(StreamId),
  category: Schema.optionalKey(label()),
  eventType: Schema.optionalKey(EventTypes),
  correlationId: Schema.optionalKey(label()),
  causationId: Schema.optionalKey(label()),
  metadata: Schema.optionalKey(Metadata)
}

/**
 * The query parameters of a question. `fromTime` and `from` are the same, and so are `toTime` and `to`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const query = {
  ...filter,
  data: Schema.optionalKey(DataConditions),
  knownAt: Schema.optionalKey(KnownAt),
  validAt: Schema.optionalKey(Timestamp.Timestamp),
  fromTime: Schema.optionalKey(Timestamp.Timestamp.annotate({ description: "Valid at some moment from this one on" })),
  toTime: Schema.optionalKey(Timestamp.Timestamp.annotate({ description: "Valid at some moment before this one" })),
  from: Schema.optionalKey(Timestamp.Timestamp),
  to: Schema.optionalKey(Timestamp.Timestamp),
  minVersion: Schema.optionalKey(Version),
  maxVersion: Schema.optionalKey(Version),
  revisions: Schema.optionalKey(
    Schema.Literals(["belief", "all"]).annotate({
      description: "`belief` (the default): the newest revision of each fact, without retracted ones. `all`: every row"
    })
  ),
  sort: Schema.optionalKey(Sort),
  offset: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_000 })).annotate({
      description:
        "Events to skip, which are read all the same: a cursor is cheaper. Not together with one. A page of large events has "
        + "fewer than `limit`: the next one begins at this number and `eventCount`"
    })
  ),
  total: Schema.optionalKey(
    Schema.Boolean.annotate({
      description: "Whether `totalCount` tells how many answer on all pages, counted as far as 10,000. Default: false"
    })
  ),
  ...Paging.query
}

// -------------------------------------------------------------------------------------------------------- reading

const digits = /^\d+$/

const readMoment = (text: string): Option.Option<FactQuery.KnownAt> =>
  digits.test(text)
    ? Option.map(readPosition(text), (position) => ({ position }))
    : Option.map(Timestamp.parse(text), (time) => ({ time }))

const readPosition = Schema.decodeOption(Consistency.Position)

const writeMoment = (moment: FactQuery.KnownAt): string =>
  "time" in moment ? Timestamp.format(moment.time) : String(moment.position)

const readPoint = (text: string): Option.Option<FactQuery.Point> => {
  const [valid, known, ...rest] = text.split(",")
  if (valid === undefined || known === undefined || rest.length > 0) return Option.none()
  return Option.all({
    ...(valid === "now" ? {} : { validAt: Timestamp.parse(valid) }),
    ...(known === "now" ? {} : { knownAt: readMoment(known) })
  })
}
