/**
 * Pages of an answer: what a cursor holds, and what a query may ask for.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Belief from "./Belief.ts"
import * as DataConditions from "./DataConditions.ts"
import { EventStoreError } from "./EventStore.ts"
import { type Fact, Position } from "./Fact.ts"
import { countedAtMost, type FactCount, type FactPage, type FactQuery, InvalidQuery } from "./FactQuery.ts"
import * as Fields from "./Fields.ts"
import * as Fingerprint from "./Fingerprint.ts"

/**
 * Where a page ended, and the moment the whole answer is for.
 *
 * @category models
 * @since 0.1.0
 */
export const Cursor = Schema.Struct({
  /** The last position known to the answer. */
  known: Schema.toCodecJson(Position),
  /** The last fact of the page. */
  position: Schema.toCodecJson(Position),
  validFrom: Timestamp.Timestamp,
  /** Tells the question it belongs to from others, and from the same one asked of another store or by another tenant. */
  asked: Schema.String
})
export type Cursor = typeof Cursor.Type

const CursorText = Schema.fromJsonString(Cursor)
const encode = Schema.encodeSync(CursorText)
const decode = Schema.decodeUnknownOption(CursorText)

/**
 * Who is asked, and for whom.
 *
 * @category models
 * @since 0.1.0
 */
export interface Asked {
  /** The store's name. */
  readonly store: string
  readonly tenant: string
}

/**
 * A query with its defaults filled in and its cursor read.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page {
  readonly query: FactQuery
  readonly of: Asked
  readonly orderBy: "position" | "validity"
  readonly direction: "forwards" | "backwards"
  readonly limit: number
  readonly after: Cursor | undefined
}

/**
 * Checks a query and reads its cursor.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(query: FactQuery, of: Asked): Effect.fn.Return<Page, EventStoreError> {
  const shape = Fields.findShapeProblem(query, queryFields, "query", "")
  if (shape !== undefined) return yield* new EventStoreError({ reason: new InvalidQuery(shape) })
  const { cursor, direction = "forwards", limit = 100, orderBy = "position", versions } = query
  if (!Fields.isVersion(limit) || limit > 1000) return yield* invalid("limit", "expected 1 to 1,000")
  for (const [path, choices] of Object.entries(choicesOf)) {
    const chosen = { direction, orderBy, revisions: query.revisions ?? "belief" }[path]
    if (chosen !== undefined && !choices.includes(chosen)) {
      return yield* invalid(path, `expected ${choices.join(" or ")}`)
    }
  }
  const problem = findTimeProblem(query) ?? Fields.findFilterProblem(query) ??
    (query.data === undefined ? undefined : DataConditions.findProblem(query.data))
  if (problem !== undefined) return yield* new EventStoreError({ reason: new InvalidQuery(problem) })
  if (versions !== undefined && !Fields.isObject(versions)) return yield* invalid("versions", "expected from and to")
  for (const end of [versions?.from, versions?.to]) {
    if (end !== undefined && !Fields.isVersion(end)) return yield* invalid("versions", "expected whole numbers from 1")
  }
  if (cursor === undefined) return { query, of, orderBy, direction, limit, after: undefined }
  if (typeof cursor !== "string") return yield* notOfThisStore
  const after = Option.flatMap(Option.getSuccess(Base64Url.decodeString(cursor)), decode)
  if (Option.isNone(after) || after.value.position < 1n || after.value.position > after.value.known) {
    return yield* notOfThisStore
  }
  if (after.value.asked !== fingerprint(query, of)) return yield* invalid("cursor", "belongs to another question")
  return { query, of, orderBy, direction, limit, after: after.value }
})

const queryFields: ReadonlySet<string> = new Set([
  ...Fields.filterFields,
  "knownAt",
  "validAt",
  "validDuring",
  "data",
  "versions",
  "revisions",
  "orderBy",
  "direction",
  "limit",
  "cursor"
])

const findTimeProblem = ({ knownAt, validAt, validDuring }: FactQuery): Fields.Problem | undefined => {
  const problem = knownAt === undefined ? undefined : Fields.findMomentProblem(knownAt)
  if (problem !== undefined) return problem
  if (validAt !== undefined && !Fields.isTime(validAt)) return { path: "validAt", message: Fields.timeExpected }
  if (validDuring === undefined) return undefined
  if (validAt !== undefined) return { path: "validDuring", message: "not together with validAt" }
  if (!Fields.isObject(validDuring)) return { path: "validDuring", message: "expected from and to" }
  if (!Fields.isTime(validDuring.from)) return { path: "validDuring.from", message: Fields.timeExpected }
  if (!Fields.isTime(validDuring.to)) return { path: "validDuring.to", message: Fields.timeExpected }
  return validDuring.to > validDuring.from
    ? undefined
    : { path: "validDuring", message: "the period must end after it begins" }
}

/** What callers without types may get wrong. */
const choicesOf: Readonly<Record<string, ReadonlyArray<string>>> = {
  direction: ["forwards", "backwards"],
  orderBy: ["position", "validity"],
  revisions: ["belief", "all"]
}

const notOfThisStore = Effect.suspend(() => Effect.fail(invalid("cursor", "not a cursor of this store")))

/** Of all that decides which facts answer a question, and in which order. */
const fingerprint = (query: FactQuery, { store, tenant }: Asked): string => {
  const { category, causationId, correlationId, knownAt, metadata, stream, types, validAt, validDuring, versions } =
    query
  const { direction = "forwards", orderBy = "position", revisions = "belief" } = query
  return Fingerprint.of([
    ...[
      store,
      tenant,
      category,
      causationId,
      correlationId,
      knownAt,
      metadata,
      stream,
      types,
      validAt,
      direction,
      orderBy
    ],
    ...[revisions, validDuring?.from, validDuring?.to, versions?.from, versions?.to, query.data]
  ])
}

/**
 * The moment a cursor's answer is for. It cannot know more than there is.
 *
 * @category getters
 * @since 0.1.0
 */
export const momentOf = (
  { known }: Cursor,
  positionAt: (known: { readonly position: Position }) => Effect.Effect<Position, EventStoreError>
): Effect.Effect<Position, EventStoreError> =>
  Effect.catchIf(positionAt({ position: known }), ({ reason }) => reason._tag === "InvalidQuery", () => notOfThisStore)

/**
 * A page, with a cursor when it is not the last one.
 *
 * @category constructors
 * @since 0.1.0
 */
export const close = (
  facts: ReadonlyArray<Fact>,
  isLast: boolean,
  { after, of, query }: Page,
  known: Position
): FactPage => {
  const last = facts.at(-1)
  return {
    facts,
    next: last === undefined || isLast
      ? null
      : Base64Url.encode(
        encode({
          known,
          position: last.position,
          validFrom: last.validFrom,
          asked: after?.asked ?? fingerprint(query, of)
        })
      ),
    knownAt: known
  }
}

/**
 * A count, of which no more than `countedAtMost` is told. It is cut where not all was looked at.
 *
 * @category constructors
 * @since 0.1.0
 */
export const counted = (facts: number, isCut: boolean, knownAt: Position): FactCount => ({
  value: Math.min(facts, countedAtMost),
  exact: facts <= countedAtMost && !isCut,
  knownAt
})

const invalid = (path: string, message: string) => new EventStoreError({ reason: new InvalidQuery({ path, message }) })

/**
 * The facts of a page, and one more if there is one, out of all that answer the query.
 *
 * @category combinators
 * @since 0.1.0
 */
export const select = (facts: ReadonlyArray<Fact>, { after, direction, limit, orderBy }: Page): ReadonlyArray<Fact> => {
  const byOrder = orderBy === "validity" ? Belief.byValidity : Belief.byPosition
  const ordered = facts.toSorted(direction === "forwards" ? byOrder : (a, b) => byOrder(b, a))
  const rest = after === undefined
    ? ordered
    : ordered.filter((fact) =>
      (byOrder(fact, after) > 0) === (direction === "forwards") && fact.position !== after.position
    )
  return rest.slice(0, limit + 1)
}

/**
 * Nothing is known of the future.
 *
 * @category errors
 * @since 0.1.0
 */
export const inTheFuture: Effect.Effect<never, EventStoreError> = Effect.suspend(() =>
  Effect.fail(invalid("knownAt", "that moment has not passed yet"))
)

/**
 * The caller's transaction has a snapshot of its own, as by `repeatable read`, and that ends before.
 *
 * @category errors
 * @since 0.1.0
 */
export const afterTheSnapshot: Effect.Effect<never, EventStoreError> = Effect.suspend(() =>
  Effect.fail(invalid("knownAt", "the transaction sees nothing of that moment: its snapshot was taken before"))
)

/**
 * The log is not that long.
 *
 * @category errors
 * @since 0.1.0
 */
export const pastTheHead: Effect.Effect<never, EventStoreError> = Effect.suspend(() =>
  Effect.fail(invalid("upTo", "no fact has that position yet"))
)
