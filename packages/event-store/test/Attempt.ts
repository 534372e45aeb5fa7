/**
 * What writers ask of a store, and what they were answered: values that pass between processes.
 */
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { type Append, type Appended, EventStore, EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { Revised, Revision } from "@strata/event-store/Revision"
import { Postgres } from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"

/** Days since the epoch; none is the moment of recording, or no end. */
const Day = Schema.NullOr(Schema.Int)

export const AskedAppend = Schema.TaggedStruct("Append", {
  facts: Schema.Array(Schema.Struct({
    eventId: Fact.EventId,
    stream: Fact.StreamId,
    type: Schema.String,
    n: Schema.Int,
    seat: Schema.NullOr(Schema.Int),
    validFrom: Day,
    validTo: Day
  })),
  expect: Schema.Record(
    Schema.String,
    Schema.Union([Schema.Literals(["any", "noStream", "streamExists"]), Schema.Int])
  ),
  /** That nobody took the seat since. */
  free: Schema.NullOr(Schema.Struct({ seat: Schema.Int, after: Fact.Position })),
  inTransaction: Schema.Boolean
})
export type AskedAppend = typeof AskedAppend.Type

export const AskedRevision = Schema.TaggedStruct("Revision", {
  eventId: Fact.EventId,
  revises: Fact.EventId,
  /** A retraction, or a correction to these values; what is null stays as it was. */
  retract: Schema.Boolean,
  n: Schema.NullOr(Schema.Int),
  validFrom: Day,
  validTo: Day,
  expectedRevision: Schema.NullOr(Schema.Int),
  inTransaction: Schema.Boolean
})
export type AskedRevision = typeof AskedRevision.Type

export const Asked = Schema.Union([AskedAppend, AskedRevision])
export type Asked = typeof Asked.Type

export const Answer = Schema.Union([
  Schema.TaggedStruct("Written", {
    places: Schema.Array(Schema.Struct({
      eventId: Fact.EventId,
      stream: Fact.StreamId,
      version: Schema.Int,
      position: Fact.Position
    })),
    recordedAt: Timestamp.Timestamp,
    duplicate: Schema.Boolean
  }),
  Schema.TaggedStruct("Refused", { reason: EventStoreError.fields.reason })
])
export type Answer = typeof Answer.Type

/** `from` was the head before it was asked for the tenant, `to` after it was answered. */
export const Attempt = Schema.Struct({
  tenant: Schema.String,
  asked: Asked,
  from: Fact.Position,
  to: Fact.Position,
  answer: Answer
})
export type Attempt = typeof Attempt.Type

export const AskedLine = Schema.fromJsonString(Schema.toCodecJson(Asked))
export const AttemptLine = Schema.fromJsonString(Schema.toCodecJson(Attempt))

export const day = (n: number) => Timestamp.fromMicros(BigInt(n) * 86_400_000_000n)
const moment = (n: number | null) => n === null ? undefined : day(n)

const toAppend = ({ expect, facts, free }: AskedAppend): Append => ({
  facts: facts.map(({ eventId, n, seat, stream, type, validFrom, validTo }) => ({
    eventId,
    stream,
    type,
    data: { n },
    metadata: seat === null ? {} : { seat },
    validFrom: moment(validFrom),
    validTo: moment(validTo)
  })),
  expect,
  condition: free === null
    ? undefined
    : { after: free.after, noneOf: [{ types: ["seat.*"], metadata: { seat: free.seat } }] }
})

const toRevision = (asked: AskedRevision): Revision => {
  const { eventId, expectedRevision, n, retract, revises, validFrom, validTo } = asked
  const fields = {
    eventId,
    revises,
    reason: "found out",
    actor: "ada",
    expectedRevision: expectedRevision ?? undefined
  }
  return retract ? { _tag: "Retraction", ...fields } : {
    _tag: "Correction",
    ...fields,
    data: n === null ? undefined : { n },
    validFrom: moment(validFrom),
    validTo: moment(validTo)
  }
}

const written = (result: Appended | Revised): Answer => ({
  _tag: "Written",
  places: ("facts" in result ? result.facts : [result]).map(
    ({ eventId, position, stream, version }) => ({ eventId, position, stream, version })
  ),
  recordedAt: result.recordedAt,
  duplicate: result.duplicate
})

/** Asks, and takes a refusal for an answer. Fails when it is not known what became of it: asking again is safe then. */
export const ask = Effect.fnUntraced(function*(asked: Asked) {
  const store = yield* EventStore
  const { transact } = yield* Postgres
  const asking: Effect.Effect<Appended | Revised, EventStoreError | TransactionError> = asked._tag === "Append"
    ? asked.inTransaction
      ? Effect.flatMap(transact(store.appendInTransaction(toAppend(asked))), Effect.orDie)
      : store.append(toAppend(asked))
    : asked.inTransaction
    ? Effect.flatMap(transact(store.reviseInTransaction(toRevision(asked))), Effect.orDie)
    : store.revise(toRevision(asked))
  return yield* Effect.matchEffect(asking, {
    onSuccess: (result) => Effect.succeed(written(result)),
    onFailure: (error) => {
      const reason = refusalOf(error)
      return reason === undefined ? Effect.fail(error) : Effect.succeed<Answer>({ _tag: "Refused", reason })
    }
  })
})

/** The store's reason, be it the failure itself or what a transaction was refused for. */
const refusalOf = (error: EventStoreError | TransactionError): EventStoreError["reason"] | undefined => {
  if (error instanceof EventStoreError) return error.reason._tag === "StoreUnavailable" ? undefined : error.reason
  const { reason } = error
  return reason._tag === "CommitRefused" && reason.cause instanceof EventStoreError
    ? refusalOf(reason.cause)
    : undefined
}

/** Asks, between two looks at the head, and again for as long as `patience` says when there is no answer. */
export const attempt = Effect.fnUntraced(function*(
  asked: Asked,
  patience: Schedule.Schedule<unknown> = Schedule.recurs(0)
) {
  const store = yield* EventStore
  const tenant = yield* CurrentTenant
  const from = yield* store.head
  const answer = yield* Effect.retry(ask(asked), patience)
  const to = yield* store.head
  return { tenant, asked, from, to, answer }
})
