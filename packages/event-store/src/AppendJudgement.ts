/**
 * Whether an append that meets something stored before is the same append again, or another one under a taken name.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import {
  type Appended,
  EventIdTaken,
  EventStoreError,
  IdempotencyKeyUsed,
  type IdempotencyRecord,
  InvalidAppend,
  StoreUnavailable
} from "./EventStore.ts"
import type { Fact, Position } from "./Fact.ts"
import type { PreparedAppend, PreparedFact } from "./PreparedAppend.ts"

/**
 * The first result when every fact of the append is stored with the same content, in the same order and with nothing
 * between facts of one stream; otherwise `EventIdTaken`. `stored` are the facts that bear one of its ids.
 *
 * @category combinators
 * @since 0.1.0
 */
export const judgeEventIds = (
  append: PreparedAppend,
  stored: ReadonlyArray<Fact>
): Effect.Effect<Appended, EventStoreError> => {
  const byId = new Map(stored.map((fact) => [fact.eventId, fact]))
  const facts: Array<Fact> = []
  for (const prepared of append.facts) {
    const fact = byId.get(prepared.eventId)
    const previous = facts.at(-1)
    if (fact === undefined) continue
    if (!sameContent(prepared, fact) || (previous !== undefined && fact.position !== previous.position + 1n)) {
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
 * Inside a transaction, a plain append could be committed without it.
 *
 * @category errors
 * @since 0.1.0
 */
export const refuseInTransaction: Effect.Effect<never, EventStoreError> = Effect.suspend(() =>
  misplaced("inside a transaction, use appendInTransaction")
)

/**
 * Outside a transaction, there is no commit to wait for.
 *
 * @category errors
 * @since 0.1.0
 */
export const refuseOutsideTransaction: Effect.Effect<never, EventStoreError> = Effect.suspend(() =>
  misplaced("outside a transaction, use append")
)

const misplaced = (message: string) =>
  Effect.fail(new EventStoreError({ reason: new InvalidAppend({ path: "transaction", message }) }))

const taken = (fact: Fact) =>
  Effect.fail(
    new EventStoreError({ reason: new EventIdTaken({ eventId: fact.eventId, position: fact.position }) })
  )

/**
 * True when a JSON text stands for a value, whatever the order of its keys.
 *
 * @category predicates
 * @since 0.1.0
 */
export const sameJson = (text: string, value: Schema.Json): boolean => Equal.equals(parse(text), value)

const parse = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Unknown))

const sameContent = (prepared: PreparedFact, fact: Fact): boolean =>
  fact.stream === prepared.stream &&
  fact.type === prepared.type &&
  fact.schemaVersion === prepared.schemaVersion &&
  (prepared.validFrom === null || prepared.validFrom === fact.validFrom) &&
  (prepared.validTo === null || prepared.validTo === fact.validTo) &&
  sameJson(prepared.data, fact.data) &&
  sameJson(prepared.metadata ?? "{}", fact.metadata)
