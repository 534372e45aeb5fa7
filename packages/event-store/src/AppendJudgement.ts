/**
 * Whether an append that meets something stored before is the same append again, or another one under a taken name; and
 * what is said of a write that is asked for in the wrong place.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import {
  type Appended,
  EventIdTaken,
  EventStoreError,
  type ExpectedVersion,
  IdempotencyKeyUsed,
  type IdempotencyRecord,
  InvalidAppend,
  StoreUnavailable,
  VersionConflict
} from "./EventStore.ts"
import type { EventId, Fact, Position } from "./Fact.ts"
import * as Fields from "./Fields.ts"
import type { PreparedAppend, PreparedFact, Slice } from "./PreparedAppend.ts"
import { isSameButErased, isSealed } from "./SealedFields.ts"

/**
 * The first result when the append would have led to what is stored: every fact of it, in the same order and with nothing
 * between them. Otherwise `EventIdTaken`, whose description has the rule. `stored` are the facts that bear one of its ids.
 *
 * @category combinators
 * @since 0.1.0
 */
export const judgeEventIds = (
  append: PreparedAppend,
  stored: ReadonlyArray<Fact>,
  firsts: ReadonlyArray<Fact>
): Effect.Effect<Appended, EventStoreError> => {
  const byId = new Map(stored.map((fact) => [fact.eventId, fact]))
  const facts: Array<Fact> = []
  for (const prepared of append.facts) {
    const fact = byId.get(prepared.eventId)
    const previous = facts.at(-1)
    if (fact === undefined) continue
    if (
      !leadsTo(append, prepared, fact, firsts) || (previous !== undefined && fact.position !== previous.position + 1n)
    ) {
      return taken(fact)
    }
    facts.push(fact)
  }
  const first = facts[0]
  const last = facts.at(-1)
  if (first === undefined || last === undefined) {
    const cause = new Error("facts with the append's event ids were refused but are not there")
    return Effect.fail(new EventStoreError({ reason: new StoreUnavailable({ operation: "append", cause }) }))
  }
  if (facts.length < append.facts.length) return taken(first)
  return Effect.succeed({ facts, position: last.position, recordedAt: last.recordedAt, duplicate: true })
}

/** True when this fact of the append would be the stored one, with every default filled in. */
const leadsTo = (
  append: PreparedAppend,
  prepared: PreparedFact,
  fact: Fact,
  firsts: ReadonlyArray<Fact>
): boolean =>
  fact.revision === 0 &&
  fact.stream === prepared.stream &&
  fact.type === prepared.type &&
  fact.schemaVersion === prepared.schemaVersion &&
  sameCorrelation(append, prepared, fact, firsts) &&
  fact.causationId === prepared.causationId &&
  fact.actor === append.actor &&
  fact.validFrom === (prepared.validFrom ?? fact.recordedAt) &&
  fact.validTo === (prepared.validTo ?? Timestamp.infinity) &&
  sameData(prepared.data, fact) &&
  sameJson(prepared.metadata ?? "{}", fact.metadata)

/** A correlation that is left out may be that of the append which stored the fact: its first fact, recorded with it. */
const sameCorrelation = (
  { facts }: PreparedAppend,
  { correlationId, eventId }: PreparedFact,
  fact: Fact,
  firsts: ReadonlyArray<Fact>
): boolean =>
  fact.correlationId === (correlationId ?? eventId) ||
  (correlationId === null || correlationId === facts[0]?.eventId) &&
    firsts.some((first) =>
      first.eventId === fact.correlationId && first.position < fact.position && first.recordedAt === fact.recordedAt
    )

/**
 * The event ids that facts name as their correlations, but for their own: those of the first facts of their appends may be
 * among them.
 *
 * @category getters
 * @since 0.1.0
 */
export const correlatedTo = (facts: ReadonlyArray<Fact>): ReadonlyArray<EventId> =>
  facts.flatMap(({ correlationId, eventId }) =>
    correlationId !== eventId && Fields.isEventId(correlationId) ? [correlationId] : []
  )

/**
 * True when a stream at this version is as expected.
 *
 * @category predicates
 * @since 0.1.0
 */
export const accepts = (expected: ExpectedVersion, version: number): boolean =>
  expected === "any" ||
  (expected === "streamExists" ? version > 0 : version === (expected === "noStream" ? 0 : expected))

/**
 * The conflict of an append of which some stream is at another version than expected: all of them that are. `versions` are those
 * of its slices, in their order.
 *
 * @category errors
 * @since 0.1.0
 */
export const versionConflict = (slices: ReadonlyArray<Slice>, versions: ReadonlyArray<number>): VersionConflict => {
  const conflicts = slices.flatMap(({ expected, stream }, index) => {
    const actual = versions[index] ?? 0
    return accepts(expected, actual) ? [] : [{ stream, expected, actual }]
  })
  const [first = { stream: "", expected: "any" as const, actual: 0 }, ...others] = conflicts
  return new VersionConflict(others.length === 0 ? first : { ...first, others })
}

/**
 * The id belongs to another fact, which is this one.
 *
 * @category errors
 * @since 0.1.0
 */
export const taken = ({ eventId, position }: Fact): Effect.Effect<never, EventStoreError> =>
  Effect.fail(new EventStoreError({ reason: new EventIdTaken({ eventId, position }) }))

/**
 * True when a JSON text stands for a value, whatever the order of its keys.
 *
 * @category predicates
 * @since 0.1.0
 */
export const sameJson = (text: string, value: Schema.Json): boolean => Equal.equals(parse(text), value)

const parse = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Unknown))

/**
 * The same for the data of a fact, of which personal fields may have been erased since.
 *
 * @category predicates
 * @since 0.1.0
 */
export const sameData = (text: string, fact: Pick<Fact, "data">): boolean =>
  sameJson(text, fact.data) || isSealed(fact) && isSameButErased(parse(text), fact.data, Equal.equals)

/**
 * A key that was used before is an error that carries the first answer: what it is worth is the caller's to judge.
 *
 * @category combinators
 * @since 0.1.0
 */
export const judgeKey = (
  append: PreparedAppend,
  record: Option.Option<IdempotencyRecord & { readonly position: Position }>
): Effect.Effect<never, EventStoreError> =>
  Effect.fail(
    new EventStoreError({
      reason: Option.match(record, {
        onSome: (used) => new IdempotencyKeyUsed(used),
        onNone: () =>
          new StoreUnavailable({
            operation: "append",
            cause: new Error(`idempotency key ${append.idempotency?.key} was just removed`)
          })
      })
    })
  )

/**
 * Inside a transaction, a plain write could be committed without it. `instead` is what to use there.
 *
 * @category errors
 * @since 0.1.0
 */
export const refuseInTransaction = (instead: string): Effect.Effect<never, EventStoreError> =>
  misplaced(`inside a transaction, use ${instead}`)

/**
 * Outside a transaction, there is no commit to wait for. `instead` is what to use there.
 *
 * @category errors
 * @since 0.1.0
 */
export const refuseOutsideTransaction = (instead: string): Effect.Effect<never, EventStoreError> =>
  misplaced(`outside a transaction, use ${instead}`)

/**
 * Asked inside a transaction or outside of one, where it cannot be done.
 *
 * @category errors
 * @since 0.1.0
 */
export const misplaced = (message: string): Effect.Effect<never, EventStoreError> =>
  Effect.suspend(() =>
    Effect.fail(new EventStoreError({ reason: new InvalidAppend({ path: "transaction", message }) }))
  )
