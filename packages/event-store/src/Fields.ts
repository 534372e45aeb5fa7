/**
 * What the fields of an append or a question may hold, and what is said of those that hold something else.
 *
 * **Details**
 *
 * Most of it is asked on every append and every read, so it is a few comparisons each.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { EventId } from "./Fact.ts"
import type { FactFilter, KnownAt, LogFilter } from "./FactQuery.ts"

/**
 * The field at `path`, and what is wrong with it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Problem {
  readonly path: string
  readonly message: string
}

// ---------------------------------------------------------------------------------------------------------- names

/** Text as PostgreSQL stores it. */
const isText = (text: string, longest: number): boolean =>
  typeof text === "string" && text !== "" && text.length <= longest && !text.includes("\0") && text.isWellFormed()

/**
 * True for text that names something, a type, an actor or a correlation, as PostgreSQL stores it.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isLabel = (text: string): boolean => isText(text, 512)

/**
 * What is said of a label that is none.
 *
 * @category constants
 * @since 0.1.0
 */
export const labelExpected = "expected 1 to 512 characters, none of them NUL or half of a surrogate pair"

/**
 * True for the id of a stream, also of one that tells of another: see `StreamCatalog.aboutStream`.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isStreamId = (text: string): boolean => {
  if (!isText(text, 520) || (text.length > 512 && !text.startsWith("$stream-"))) return false
  const hyphen = text.indexOf("-")
  return hyphen > 0 && hyphen < text.length - 1
}

/**
 * What is said of a stream id that is none.
 *
 * @category constants
 * @since 0.1.0
 */
export const streamExpected = "expected <category>-<id>, at most 512 characters"

/**
 * True for a UUID in lower case.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isEventId = Schema.is(EventId)

/**
 * What is said of an event id that is none.
 *
 * @category constants
 * @since 0.1.0
 */
export const eventIdExpected = "expected a UUID in lower case"

// -------------------------------------------------------------------------------------------------------- numbers

/**
 * True for a version of a stream or of a shape, and for a number of facts. They are kept as `integer`.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isVersion = (version: number): boolean => isVersionOrNone(version) && version >= 1

/**
 * The same, and 0 for a stream that is not there.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isVersionOrNone = (version: number): boolean =>
  Number.isInteger(version) && version >= 0 && version <= 2_147_483_647

/**
 * What is said of a version that is none.
 *
 * @category constants
 * @since 0.1.0
 */
export const versionExpected = "expected a whole number from 1"

/**
 * True for a position, whether it is there or not. They are kept as `bigint`.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isPosition = (position: bigint): boolean =>
  typeof position === "bigint" && position >= 0n && position <= 9_223_372_036_854_775_807n

/**
 * What is said of a position that is none.
 *
 * @category constants
 * @since 0.1.0
 */
export const positionExpected = "expected a position of the log"

/**
 * True for an instant or an infinity that can be stored.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isTime = (time: Timestamp.Timestamp): boolean => typeof time === "bigint" && Timestamp.isStorable(time)

/**
 * What is wrong with a moment, whether it has passed or not.
 *
 * @category predicates
 * @since 0.1.0
 */
export const findMomentProblem = (knownAt: KnownAt, path = "knownAt"): Problem | undefined => {
  if (!isObject(knownAt) || ("time" in knownAt) === ("position" in knownAt)) {
    return { path, message: "expected either a time or a position of the log" }
  }
  if ("time" in knownAt) return isTime(knownAt.time) ? undefined : { path, message: timeExpected }
  return isPosition(knownAt.position) ? undefined : { path, message: positionExpected }
}

/**
 * The end of a period that is no time: it begins at an instant, and ends at one or never.
 *
 * @category predicates
 * @since 0.1.0
 */
export const findPeriodProblem = (
  validFrom: Timestamp.Timestamp | undefined,
  validTo: Timestamp.Timestamp | undefined
): "validFrom" | "validTo" | undefined => {
  if (validFrom !== undefined && !(Timestamp.isFinite(validFrom) && isTime(validFrom))) return "validFrom"
  if (validTo !== undefined && (validTo === Timestamp.negativeInfinity || !isTime(validTo))) {
    return "validTo"
  }
  return undefined
}

/**
 * What is said of a time that is none.
 *
 * @category constants
 * @since 0.1.0
 */
export const timeExpected = "expected an instant from 4714 BC up to the year 294276"

// -------------------------------------------------------------------------------------------------------- filters

/**
 * The field of a filter that no fact could fit. `within` stands before its name.
 *
 * @category predicates
 * @since 0.1.0
 */
export const findFilterProblem = (
  { category, causationId, correlationId, metadata, stream, tenant, types }: FactFilter & LogFilter,
  within = ""
): Problem | undefined => {
  if (stream !== undefined && !isStreamId(stream)) return { path: `${within}stream`, message: streamExpected }
  if (types !== undefined && !Array.isArray(types)) return { path: `${within}types`, message: "expected an array" }
  if (types?.length === 0) return { path: `${within}types`, message: "expected at least one type" }
  if (types?.every(isLabel) === false) return { path: `${within}types`, message: labelExpected }
  for (const [field, text] of Object.entries({ category, correlationId, causationId, tenant })) {
    if (text !== undefined && !isLabel(text)) return { path: `${within}${field}`, message: labelExpected }
  }
  if (category?.includes("-") === true) return { path: `${within}category`, message: categoryExpected }
  if (metadata === undefined) return undefined
  const json = toJsonb(metadata, `${within}metadata`)
  if (Result.isFailure(json)) return json.failure
  // What JSON leaves out would be asked for otherwise than it is meant.
  return isJson(metadata) ? undefined : { path: `${within}metadata`, message: "holds what is not JSON" }
}

/**
 * What is wrong with what should be an object with some of these fields: that it is none, or has a field that nobody knows and that
 * would not be looked at. `path` names it, `within` stands before the names of its fields.
 *
 * @category predicates
 * @since 0.1.0
 */
export const findShapeProblem = (
  value: object,
  known: ReadonlySet<string>,
  path: string,
  within = `${path}.`
): Problem | undefined => {
  if (!isObject(value)) return { path, message: "expected an object" }
  for (const field of Object.keys(value)) {
    if (!known.has(field) && Reflect.get(value, field) !== undefined) {
      return { path: `${within}${field}`, message: "there is no such field here" }
    }
  }
  return undefined
}

/**
 * The fields of filters.
 *
 * @category constants
 * @since 0.1.0
 */
export const filterFields: ReadonlySet<string> = new Set([
  "stream",
  "category",
  "types",
  "correlationId",
  "causationId",
  "metadata"
])
export const logFilterFields: ReadonlySet<string> = new Set(["stream", "category", "types", "tenant"])

/**
 * What is said of a category that is none.
 *
 * @category constants
 * @since 0.1.0
 */
export const categoryExpected = "expected a category, which ends before the first - of a stream's id"

const isJson = Schema.is(Schema.Json)

// ----------------------------------------------------------------------------------------------------------- JSON

/**
 * Bytes of one value as JSON at most. With `maxJsonb` beside it a fact fits into a message of the database, which the driver takes
 * up to 16 MiB: what is stored can be read.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxJson = 8_388_608

/**
 * Bytes of metadata at most. Where it is stored as `jsonb`, it comes back longer than it went in: with spaces, and `1e308` with all
 * its digits, fifty times as long.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxJsonb = 131_072

/** Counted only where it could be too much: no character has more than three bytes for each unit of its length. */
const isLonger = (text: string, most: number): boolean =>
  text.length > most || 3 * text.length > most && new TextEncoder().encode(text).length > most

// Twice in every append, where a schema's encoder, which runs a fiber for each value, would take longer than the rest of it.
const encodeJson = (value: unknown) => Result.try((): string | undefined => JSON.stringify(value))

/**
 * A value as JSON text, within bounds. `path` names the field in the problem.
 *
 * @category formatting
 * @since 0.1.0
 */
export const toJson = (value: unknown, path: string): Result.Result<string, Problem> => {
  const text = encodeJson(value)
  if (Result.isFailure(text)) {
    return Result.fail({ path, message: text.failure instanceof RangeError ? tooDeep : "not JSON" })
  }
  if (text.success === undefined) return Result.fail({ path, message: "not JSON" })
  if (isLonger(text.success, maxJson)) return Result.fail({ path, message: `longer than ${maxJson} bytes as JSON` })
  if (isDeep(text.success)) return Result.fail({ path, message: tooDeep })
  return text.success.includes("null") && holdsNoNumber(value)
    ? Result.fail({ path, message: "holds NaN or an infinity, which JSON cannot" })
    : Result.succeed(text.success)
}

/** Objects and arrays in each other at most. What reads and compares values has a stack with an end. */
const maxLevels = 1000
const tooDeep = `nested deeper than ${maxLevels} levels`

/** True of JSON text with more levels than may be. Few texts have so many brackets that they have to be read for it. */
const isDeep = (text: string): boolean => {
  if (text.length < 2 * maxLevels || !(hasMany(text, "[") || hasMany(text, "{"))) return false
  let levels = 0
  for (let at = 0; at < text.length; at++) {
    const char = text[at]
    if (char === "[" || char === "{") {
      if (++levels > maxLevels) return true
    } else if (char === "]" || char === "}") levels--
    else if (char === "\"") at = endOfText(text, at)
  }
  return false
}

/** True of half as many of these as there may be levels: with fewer of both kinds there are not more. */
const hasMany = (text: string, bracket: string): boolean => {
  let count = 0
  for (let at = text.indexOf(bracket); at >= 0; at = text.indexOf(bracket, at + 1)) {
    if (++count > maxLevels / 2) return true
  }
  return false
}

/** Where the quotation mark is that ends what begins with the one here. */
const endOfText = (text: string, from: number): number => {
  let end = text.indexOf("\"", from + 1)
  while (isEscaped(text, end)) end = text.indexOf("\"", end + 1)
  return end
}

const isEscaped = (text: string, at: number): boolean => {
  let before = at
  while (text[before - 1] === "\\") before--
  return (at - before) % 2 === 1
}

/** True when some number in a value is none: `JSON.stringify` writes null for it. */
const holdsNoNumber = (value: unknown): boolean => {
  const pending = [value]
  while (pending.length > 0) {
    const next = pending.pop()
    if (typeof next === "number" && !Number.isFinite(next)) return true
    if (typeof next === "object" && next !== null) { for (const member of Object.values(next)) pending.push(member) }
  }
  return false
}

/**
 * True for an object with named fields.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isObject = (value: unknown): boolean =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/**
 * Metadata as JSON text that `jsonb` can hold.
 *
 * @category formatting
 * @since 0.1.0
 */
export const toJsonb = (value: unknown, path: string): Result.Result<string, Problem> => {
  if (!isObject(value)) return Result.fail({ path, message: "expected an object" })
  return Result.filterOrFail(
    Result.filterOrFail(
      toJson(value, path),
      (text) => !isLonger(text, maxJsonb),
      () => ({ path, message: `longer than ${maxJsonb} bytes as JSON` })
    ),
    isJsonbText,
    () => ({ path, message: "holds NUL or half of a surrogate pair" })
  )
}

/**
 * True of JSON text that `jsonb` can hold.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isJsonbText = (text: string): boolean => !text.includes("\\u") || !notInJsonb.test(text)

/** What `jsonb` cannot hold and `JSON.stringify` writes as an escape: NUL and lone surrogates. */
const notInJsonb = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/
