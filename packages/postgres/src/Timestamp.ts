/**
 * Instants as PostgreSQL keeps them: whole microseconds since 1970-01-01T00:00:00Z, with both infinities.
 *
 * **When to use**
 *
 * Use for every `timestamptz` that is compared, stored back or shown. A JavaScript `Date` would drop the
 * microseconds and has no `infinity`.
 *
 * **Details**
 *
 * A timestamp is a `bigint`, so `<` and `===` order and compare it, and `infinity` is larger than every instant,
 * as it is for PostgreSQL. The range is that of `timestamptz`, 4713 BC to 294276 AD, but for its last 30 years: those
 * instants lie beyond `infinity`.
 *
 * **Example** (Reading and printing)
 *
 * ```ts
 * import * as Timestamp from "@strata/postgres/Timestamp"
 *
 * Timestamp.format(Timestamp.fromMillis(1679611203000)) // "2023-03-23T22:40:03.000000Z"
 * ```
 *
 * @since 0.1.0
 */
import type * as Brand from "effect/Brand"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as Struct from "effect/Struct"

/**
 * Microseconds since the Unix epoch, or one of the infinities.
 *
 * @category models
 * @since 0.1.0
 */
export type Timestamp = bigint & Brand.Brand<"@strata/postgres/Timestamp">

/**
 * Later than every instant: an open end.
 *
 * @category constants
 * @since 0.1.0
 */
export const infinity = 9223372036854775807n as Timestamp

/**
 * Earlier than every instant: an open beginning.
 *
 * @category constants
 * @since 0.1.0
 */
export const negativeInfinity = -9223372036854775808n as Timestamp

/**
 * Takes microseconds since the Unix epoch.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromMicros = (micros: bigint): Timestamp => micros as Timestamp

/**
 * Takes whole milliseconds since the Unix epoch.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromMillis = (millis: number): Timestamp => BigInt(Math.trunc(millis)) * 1000n as Timestamp

/**
 * Whole milliseconds since the Unix epoch, rounded towards the past.
 *
 * @category getters
 * @since 0.1.0
 */
export const toMillis = (self: Timestamp): number => Number(self >= 0n ? self / 1000n : (self - 999n) / 1000n)

/**
 * The process's clock, in whole milliseconds. Recorded time and leases use the database's clock instead.
 *
 * @category constructors
 * @since 0.1.0
 */
export const now: Effect.Effect<Timestamp> = Effect.map(Clock.currentTimeMillis, fromMillis)

/**
 * True for an instant, false for either infinity.
 *
 * @category guards
 * @since 0.1.0
 */
export const isFinite = (self: Timestamp): boolean => self !== infinity && self !== negativeInfinity

/**
 * True for what `timestamptz` holds: either infinity, or an instant from 4714 BC up to the year 294276.
 *
 * @category guards
 * @since 0.1.0
 */
export const isStorable = (self: Timestamp): boolean => !isFinite(self) || (self >= firstMicros && self < endMicros)

/** 4714-11-24 BC, the first instant, and 294277-01-01, the first one that is too late. */
const firstMicros = -210_866_803_200_000_000n
const endMicros = 9_224_318_016_000_000_000n

const isoPattern =
  /^([+-]\d{6}|\d{4,6})-(\d{2})-(\d{2})[T ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,6})\d*)?)?(Z|[+-]\d{2}(?::?\d{2})?)$/i

/** The calendar repeats every 400 years, which brings every instant into the range of the platform's dates. */
const cycleMicros = 146_097n * 86_400_000_000n

/**
 * Reads ISO-8601 with a zone (`2026-01-31T10:00:00.123456Z`, `…+02:00`), `infinity` or `-infinity`.
 * Digits beyond the microsecond are dropped. Years outside 0 to 9999 have a sign and six digits; 0 is 1 BC. Instants
 * outside the range are not read.
 *
 * @category parsing
 * @since 0.1.0
 */
export const parse = (text: string): Option.Option<Timestamp> => {
  if (text === "infinity") return Option.some(infinity)
  if (text === "-infinity") return Option.some(negativeInfinity)
  const match = isoPattern.exec(text)
  if (match === null) return Option.none()
  const [, year, month, day, hour, minute, second = "0", fraction = "", zone = "Z"] = match
  const cycles = Math.floor((Number(year) - 1970) / 400)
  const parts = {
    year: Number(year) - cycles * 400,
    month: Number(month),
    day: Number(day),
    hour: Number(hour),
    minute: Number(minute),
    second: Number(second)
  }
  return DateTime.make(parts).pipe(
    // A day or an hour that does not exist comes back as another one.
    Option.filter((dateTime) => {
      const read = DateTime.toPartsUtc(dateTime)
      return Struct.keys(parts).every((key) => read[key] === parts[key])
    }),
    Option.map((dateTime) =>
      fromMicros(
        BigInt(cycles) * cycleMicros +
          BigInt(DateTime.toEpochMillis(dateTime) - offsetMinutes(zone) * 60_000) * 1000n +
          BigInt(fraction.padEnd(6, "0"))
      )
    ),
    Option.filter((timestamp) => timestamp >= first && timestamp < infinity)
  )
}

/** The earliest instant of `timestamptz`: the beginning of 24 November 4714 BC in the Gregorian calendar. */
const first = -210_866_803_200_000_000n

const offsetMinutes = (zone: string): number => {
  const digits = zone.replace(":", "")
  if (digits.toUpperCase() === "Z") return 0
  return (digits.startsWith("-") ? -1 : 1) * (Number(digits.slice(1, 3)) * 60 + Number(digits.slice(3, 5)))
}

/**
 * Writes ISO-8601 in UTC with six digits of a second, or `infinity` / `-infinity`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (self: Timestamp): string => {
  if (self === infinity) return "infinity"
  if (self === negativeInfinity) return "-infinity"
  const cycles = (self >= 0n ? self : self - cycleMicros + 1n) / cycleMicros
  const rest = self - cycles * cycleMicros
  const text = DateTime.formatIso(DateTime.makeUnsafe(Number(rest / 1000n)))
  const year = Number(text.slice(0, 4)) + Number(cycles) * 400
  return `${formatYear(year)}${text.slice(4, -1)}${String(rest % 1000n).padStart(3, "0")}Z`
}

const formatYear = (year: number): string =>
  year >= 0 && year <= 9999
    ? String(year).padStart(4, "0")
    : `${year < 0 ? "-" : "+"}${String(Math.abs(year)).padStart(6, "0")}`

const Micros = Schema.BigInt.pipe(Schema.brand("@strata/postgres/Timestamp"))

/**
 * A timestamp whose encoded form is ISO-8601 text in UTC with microseconds.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Timestamp: Schema.Codec<Timestamp, string> = Schema.String.pipe(
  Schema.decodeTo(
    Micros,
    SchemaTransformation.transformEffect({
      decode: (text: string, options) =>
        Effect.mapError(Effect.fromOption(parse(text)), () =>
          new SchemaIssue.InvalidValue(
            {
              message: "Expected a time in ISO-8601 with a zone, such as 2026-01-31T10:00:00.000000Z"
            },
            text,
            options
          )),
      encode: (value: bigint) => Effect.succeed(format(fromMicros(value)))
    })
  ),
  Schema.annotate({
    identifier: "Timestamp",
    title: "Timestamp",
    description: "ISO-8601 in UTC with microseconds",
    examples: [1679611203000000n as Timestamp]
  })
)
