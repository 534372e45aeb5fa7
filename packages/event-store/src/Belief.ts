/**
 * What was believed: the resolution of revisions, and of both time axes, over facts in memory.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Equal from "effect/Equal"
import * as DataConditions from "./DataConditions.ts"
import { categoryOf, type Fact, type Position } from "./Fact.ts"
import type { FactQuery } from "./FactQuery.ts"

/**
 * Of each chain its newest revision, without the retracted ones, in the order of the first facts. The facts must be whole
 * chains, in the order of their positions.
 *
 * @category combinators
 * @since 0.1.0
 */
export const resolve = (facts: Iterable<Fact>): ReadonlyArray<Fact> => {
  const newest = new Map<Position, Fact>()
  for (const fact of facts) newest.set(fact.origin, fact)
  return Array.from(newest.values()).filter((fact) => !fact.retracted)
}

/**
 * What was known once a position was recorded.
 *
 * @category combinators
 * @since 0.1.0
 */
export const knownAt = (facts: ReadonlyArray<Fact>, position: Position): ReadonlyArray<Fact> =>
  resolve(facts.filter((fact) => fact.position <= position))

/**
 * True when the fact's period holds a moment.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isValidAt = (fact: Fact, time: Timestamp.Timestamp): boolean =>
  fact.validFrom <= time && time < fact.validTo

/**
 * By the beginning of validity, and by position where that is equal.
 *
 * @category ordering
 * @since 0.1.0
 */
export const byValidity = (a: Place, b: Place): number =>
  a.validFrom < b.validFrom ? -1 : a.validFrom > b.validFrom ? 1 : byPosition(a, b)

/**
 * By position.
 *
 * @category ordering
 * @since 0.1.0
 */
export const byPosition = (a: Place, b: Place): number => a.position < b.position ? -1 : a.position > b.position ? 1 : 0

/**
 * By the place where each fact first was.
 *
 * @category ordering
 * @since 0.1.0
 */
export const byOrigin = (a: Fact, b: Fact): number => a.origin < b.origin ? -1 : a.origin > b.origin ? 1 : 0

/** What facts are ordered by. */
type Place = Pick<Fact, "position" | "validFrom">

/**
 * True when the fact fits every filter of a query; what the query says of knowledge, order and pages is left aside.
 *
 * @category predicates
 * @since 0.1.0
 */
export const matches = (query: FactQuery) => {
  const types = query.types === undefined ? undefined : new RegExp(typePattern(query.types), "u")
  const fits = query.data === undefined ? undefined : DataConditions.fits(query.data)
  return (fact: Fact): boolean =>
    (query.validAt === undefined || isValidAt(fact, query.validAt)) &&
    (query.validDuring === undefined ||
      (fact.validFrom < query.validDuring.to && query.validDuring.from < fact.validTo)) &&
    (query.stream === undefined || fact.stream === query.stream) &&
    (query.category === undefined || categoryOf(fact.stream) === query.category) &&
    (types === undefined || types.test(fact.type)) &&
    (query.correlationId === undefined || fact.correlationId === query.correlationId) &&
    (query.causationId === undefined || fact.causationId === query.causationId) &&
    (query.metadata === undefined ||
      Object.entries(query.metadata).every(([key, value]) => Equal.equals(fact.metadata[key], value))) &&
    (fits === undefined || fits(fact.data)) &&
    (query.versions?.from === undefined || fact.version >= query.versions.from) &&
    (query.versions?.to === undefined || fact.version <= query.versions.to)
}

/**
 * A regular expression for type names with `*` for one segment between dots, as JavaScript and PostgreSQL both read it.
 *
 * @category formatting
 * @since 0.1.0
 */
export const typePattern = (types: ReadonlyArray<string>): string =>
  `^(${
    types
      .map((type) => type.split(".").map((segment) => segment === "*" ? "[^.]+" : escape(segment)).join("\\."))
      .join("|")
  })$`

const escape = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|/]/g, "\\$&")
