/**
 * The statement that appends: its arguments, and what its answer means for each append.
 *
 * @since 0.1.0
 */
import * as Outbox from "@strata/outbox/Outbox"
import * as PublishStatement from "@strata/outbox/PublishStatement"
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as SqlState from "@strata/postgres/SqlState"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { cast } from "effect/Function"
import * as Predicate from "effect/Predicate"
import type { SqlError } from "effect/sql/SqlError"
import * as AppendJudgement from "./AppendJudgement.ts"
import { conditionOfTheFuture, endsBeforeRecording } from "./CheckedAppend.ts"
import type { Recorded, WriteError } from "./CommitWork.ts"
import {
  type Appended,
  ConditionFailed,
  EventStoreError,
  type ExpectedVersion,
  InvalidAppend,
  StoreUnavailable,
  type VersionConflict
} from "./EventStore.ts"
import { beginning, Position, type StreamId } from "./Fact.ts"
import type { PreparedAppend, PreparedFact } from "./PreparedAppend.ts"

/**
 * What became of an append that was neither invalid nor in conflict: it was written, or something of it had been
 * before, or a stream is closed, which only a look at what is stored can judge.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome =
  | { readonly _tag: "Written"; readonly appended: Appended }
  | { readonly _tag: "EventIdsSeen" }
  | { readonly _tag: "KeySeen" }
  | { readonly _tag: "StreamClosed"; readonly stream: StreamId }

/**
 * The channel on which it is told that a store has grown.
 *
 * @category wake-ups
 * @since 0.1.0
 */
export const channelOf = (storeId: number): string => `${channelPrefix}${storeId}`
const channelPrefix = "strata_store_"

/**
 * What became of the appends that were written together, and whether their commit has told other processes of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Written {
  readonly answers: ReadonlyArray<Answer>
  readonly isTold: boolean
}

/**
 * Writes appends of one tenant to a store, each whole or not at all. One statement and, outside a transaction, one commit.
 * The store's row is locked until the transaction ends: see migrations/0001_event_store.sql.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  postgres: Postgres["Service"],
  storeId: number,
  // What its notifications say after the position.
  signature: string
): (appends: ReadonlyArray<PreparedAppend>) => Effect.Effect<Written, SqlError> => {
  const { rows } = postgres
  const channel = channelOf(storeId)
  const write = (appends: ReadonlyArray<PreparedAppend>): Effect.Effect<Written, SqlError> =>
    Effect.flatMap(postgres.holdsConnection, (isInside) => {
      if (isInside) return silently(appends)
      const channels = appends.some(({ messages }) => messages.length > 0) ? [channel, Outbox.channel] : [channel]
      return Effect.flatMap(postgres.mayNotify(...channels), (tells) => tells ? telling(appends) : silently(appends))
    })

  const silently = (appends: ReadonlyArray<PreparedAppend>): Effect.Effect<Written, SqlError> =>
    Effect.map(statement(appends, false), (answers) => ({ answers, isTold: false }))

  const telling = Effect.fnUntraced(function*(appends: ReadonlyArray<PreparedAppend>) {
    const answers = yield* Effect.onError(statement(appends, true), () => postgres.wake(channel))
    const isTold = answers.some(({ _tag }) => _tag === "Written")
    // What the statement was to take along.
    if (!isTold) yield* postgres.wake(channel)
    return { answers, isTold }
  })

  const statement = (
    appends: ReadonlyArray<PreparedAppend>,
    tells: boolean
  ): Effect.Effect<ReadonlyArray<Answer>, SqlError> => {
    const [append] = appends
    if (append !== undefined && appends.length === 1 && isSingle(append)) return writeOne(append, tells)
    const published = appends.flatMap(({ messages }, index) =>
      messages.map((message) => ({ message, append: index + 1 }))
    )
    const parameters = [storeId, ...parametersOf(appends)]
    const publishing = (text: string | null) =>
      rows(appendAndPublish, [
        ...parameters,
        Pg.text(text),
        Pg.text(tells ? signature : null),
        Pg.intArray(published.map(({ append }) => append)),
        ...PublishStatement.parameters(published.map(({ message }) => message))
      ])
    const found = published.length === 0
      ? tells ? rows(appendFactsTelling, [...parameters, Pg.text(signature)]) : rows(appendFacts, parameters)
      : tells
      ? Outbox.told(postgres, publishing)
      : Outbox.telling(postgres, publishing)
    return Effect.map(found, answered(appends))
  }

  /** The same for one fact: half the work where load makes no batches. */
  const writeOne = (append: PreparedAppend, tells: boolean) => {
    const fact = append.facts[0]!
    const found = rows(tells ? appendFactTelling : appendFact, [
      storeId,
      Pg.text(append.tenant),
      Pg.text(fact.stream),
      Pg.int(expectedCode(append.slices[0]!.expected)),
      Pg.uuid(fact.eventId),
      Pg.text(fact.type),
      Pg.int(fact.schemaVersion),
      Pg.jsonText(fact.data),
      Pg.jsonText(fact.metadata ?? "{}"),
      Pg.text(fact.correlationId),
      Pg.text(fact.causationId),
      Pg.text(append.actor),
      Pg.text(append.traceparent),
      Pg.timestamptz(fact.validFrom),
      Pg.timestamptz(fact.validTo),
      ...tells ? [Pg.text(signature)] : []
    ])
    return Effect.map(found, ([row]) => {
      const [outcome, version, position, micros]: Said = cast(row![0])
      return answers([append], {
        outcomes: [Number(outcome)],
        conflicts: [1],
        actuals: [Number(version)],
        offsets: [position - 1n],
        bases: [Number(version)],
        blocker: null,
        at: Timestamp.fromMicros(micros)
      })
    })
  }

  return write
}

// ---------------------------------------------------------------------------------------------------- one statement

/** True when append_fact can write it: nothing else than one fact of one stream. */
const isSingle = ({ condition, facts, idempotency, messages, slices }: PreparedAppend): boolean =>
  facts.length === 1 && slices.length === 1 && condition === null && idempotency === null && messages.length === 0

/** The text of the one for one fact. */
const appendFact = "select append_fact($1::integer, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"

/** The same, where its commit tells of it. */
const appendFactTelling = `
  select a.said, case when a.said[1] = 0 then pg_notify('${channelPrefix}' || $1::integer, a.said[3]::text || $16) end
  from (${appendFact} as said offset 0) a`

/** What it says. */
type Said = readonly [outcome: bigint, version: bigint, position: bigint, micros: bigint]

/** What append_facts returns. */
type BatchRow = readonly [
  outcomes: Batch["outcomes"],
  conflicts: Batch["conflicts"],
  actuals: Batch["actuals"],
  offsets: Batch["offsets"],
  bases: Batch["bases"],
  blocker: Batch["blocker"],
  at: Batch["at"]
]

interface Batch {
  readonly outcomes: ReadonlyArray<number>
  readonly conflicts: ReadonlyArray<number>
  readonly actuals: ReadonlyArray<number>
  readonly offsets: ReadonlyArray<bigint>
  readonly bases: ReadonlyArray<number>
  readonly blocker: Position | null
  readonly at: Timestamp.Timestamp
}

const expectedCode = (expected: ExpectedVersion): number =>
  expected === "any" ? -2 : expected === "streamExists" ? -1 : expected === "noStream" ? 0 : expected

/** The text for any others. */
const appendFacts = `
  select a.outcomes, a.conflicts, a.actuals, a.offsets, a.bases, a.blocker, a.at
  from append_facts(
    $1::integer, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25,
    $26, $27
  ) a`

/** The same, where their commit tells of it. */
const appendFactsTelling = `
  select a.*, case when 0 = any (a.outcomes) then pg_notify('${channelPrefix}' || $1::integer, $28) end
  from (${appendFacts}) a`

/** The same, where something is published with what was written. */
const appendAndPublish = `
  select w.*
  from (${appendFacts}) w
  cross join lateral (
    select
      publish_with_appends(w.outcomes, $30, ${PublishStatement.placeholders(31)}),
      case when $28 is not null then pg_notify('${Outbox.channel}', $28) end,
      case when $29 is not null and 0 = any (w.outcomes) then pg_notify('${channelPrefix}' || $1::integer, $29) end
    offset 0
  ) p`

const answered = (appends: ReadonlyArray<PreparedAppend>) => (found: ReadonlyArray<ReadonlyArray<unknown>>) => {
  const [outcomes, conflicts, actuals, offsets, bases, blocker, at]: BatchRow = cast(found[0]!)
  return answers(appends, { outcomes, conflicts, actuals, offsets, bases, blocker, at })
}

/** The arguments of append_facts: appends, slices and facts of the batch, each numbered from 1. */
const parametersOf = (appends: ReadonlyArray<PreparedAppend>): ReadonlyArray<Pg.Parameter> => {
  const streams = new Map<string, number>()
  const slices = appends.flatMap((append, index) => append.slices.map((slice) => ({ slice, append: index + 1 })))
  for (const { slice } of slices) if (!streams.has(slice.stream)) streams.set(slice.stream, streams.size + 1)
  const keys: Array<KeyRow> = []
  const facts: Array<FactRow> = []
  let firstSlice = 1
  for (const [index, append] of appends.entries()) {
    for (const fact of append.facts) facts.push({ fact, slice: firstSlice + fact.slice, append })
    if (append.idempotency !== null) {
      keys.push({ append: index + 1, last: facts.length, record: append.idempotency })
    }
    firstSlice += append.slices.length
  }
  const { condition, tenant } = appends[0]!
  return [
    Pg.text(tenant),
    Pg.textArray([...streams.keys()]),
    Pg.intArray(slices.map(({ append }) => append)),
    Pg.intArray(slices.map(({ slice }) => streams.get(slice.stream)!)),
    Pg.intArray(slices.map(({ slice }) => expectedCode(slice.expected))),
    Pg.intArray(slices.map(({ slice }) => slice.count)),
    Pg.intArray(facts.map(({ slice }) => slice)),
    Pg.intArray(facts.map(({ fact }) => fact.ordinal)),
    Pg.uuidArray(facts.map(({ fact }) => fact.eventId)),
    Pg.textArray(facts.map(({ fact }) => fact.type)),
    Pg.intArray(facts.map(({ fact }) => fact.schemaVersion)),
    Pg.textArray(facts.map(({ fact }) => fact.data)),
    Pg.textArray(unlessNull(facts.map(({ fact }) => fact.metadata))),
    Pg.textArray(unlessNull(facts.map(({ fact }) => fact.correlationId))),
    Pg.textArray(unlessNull(facts.map(({ fact }) => fact.causationId))),
    Pg.textArray(unlessNull(facts.map(({ append }) => append.actor))),
    Pg.textArray(unlessNull(facts.map(({ append }) => append.traceparent))),
    Pg.timestamptzArray(unlessNull(facts.map(({ fact }) => fact.validFrom))),
    Pg.timestamptzArray(unlessNull(facts.map(({ fact }) => fact.validTo))),
    Pg.intArray(keys.map(({ append }) => append)),
    Pg.textArray(keys.map(({ record }) => record.key)),
    Pg.textArray(keys.map(({ record }) => record.fingerprint)),
    Pg.textArray(keys.map(({ record }) => record.answer)),
    Pg.intArray(keys.map(({ last }) => last)),
    Pg.bigint(condition?.looked ?? null),
    Pg.jsonText(condition?.filters ?? null)
  ]
}

/** What is null in every fact goes as an empty array, which costs nothing. */
const unlessNull = <A>(values: ReadonlyArray<A | null>): ReadonlyArray<A | null> =>
  values.some((value) => value !== null) ? values : []

interface KeyRow {
  readonly append: number
  readonly last: number
  readonly record: NonNullable<PreparedAppend["idempotency"]>
}

interface FactRow {
  readonly append: PreparedAppend
  readonly slice: number
  readonly fact: PreparedFact
}

// -------------------------------------------------------------------------------------------------------- answers

/**
 * What the statement says of one append.
 *
 * @category models
 * @since 0.1.0
 */
export type Answer = Outcome | {
  readonly _tag: "Refused"
  readonly reason: VersionConflict | ConditionFailed | InvalidAppend
}

const answers = (appends: ReadonlyArray<PreparedAppend>, row: Batch): ReadonlyArray<Answer> => {
  let firstSlice = 0
  let firstFact = 1n
  return appends.map((append, index): Answer => {
    const bases = firstSlice
    const offset = row.offsets[index]! + firstFact
    firstSlice += append.slices.length
    firstFact += BigInt(append.facts.length)
    switch (row.outcomes[index]!) {
      case 0: {
        const facts = append.facts.map((fact, place) => ({
          eventId: fact.eventId,
          stream: fact.stream,
          version: row.bases[bases + fact.slice]! + fact.ordinal,
          position: positionOf(offset + BigInt(place))
        }))
        const position = facts[facts.length - 1]!.position
        return { _tag: "Written", appended: { facts, position, recordedAt: row.at, duplicate: false } }
      }
      case 1: {
        const at = append.slices.length === 1 ? [row.actuals[index]!] : row.bases.slice(bases, firstSlice)
        return { _tag: "Refused", reason: AppendJudgement.versionConflict(append.slices, at) }
      }
      case 2:
        return { _tag: "EventIdsSeen" }
      case 3:
        return { _tag: "KeySeen" }
      case 6:
        return { _tag: "Refused", reason: conditionOfTheFuture }
      case 5:
        return { _tag: "StreamClosed", stream: append.slices[row.conflicts[index]! - 1 - bases]!.stream }
      default: {
        const after = append.condition?.after ?? beginning
        return { _tag: "Refused", reason: new ConditionFailed({ after, position: row.blocker ?? after }) }
      }
    }
  })
}

const positionOf = (value: bigint) => Position.make(value, { disableChecks: true })

/**
 * An answer as the append's caller gets it.
 *
 * @category converting
 * @since 0.1.0
 */
export const toExit = (answer: Answer): Exit.Exit<Outcome, EventStoreError> =>
  answer._tag === "Refused" ? Exit.fail(new EventStoreError({ reason: answer.reason })) : Exit.succeed(answer)

/**
 * The facts that were written, if any: those of one batch follow each other.
 *
 * @category getters
 * @since 0.1.0
 */
export const recordedBy = ({ answers }: Written): Recorded | undefined => {
  const written = answers.flatMap((answer) => answer._tag === "Written" ? [answer.appended] : [])
  const first = written[0]?.facts[0]
  const last = written.at(-1)
  return first === undefined || last === undefined
    ? undefined
    : { after: positionOf(first.position - 1n), upTo: last.position }
}

/**
 * The store could not be asked.
 *
 * @category errors
 * @since 0.1.0
 */
export const unavailable = (operation: string, cause: unknown) =>
  new EventStoreError({ reason: new StoreUnavailable({ operation, cause }) })

/**
 * True when a batch may be sent again. That is safe whatever became of it: its event ids tell.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isRepeatable = (error: WriteError): boolean => {
  const kind = SqlState.classify(error)
  return kind === "retryable" || kind === "unknown-outcome"
}

/**
 * True of a repeatable failure after which nobody knows whether the statement took effect.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isUnknown = (error: WriteError): boolean =>
  error._tag === "TransactionError"
    ? error.reason._tag === "OutcomeUnknown"
    : SqlState.classify(error) === "unknown-outcome"

/** The code of publish_with_appends where a destination takes nothing. */
const refused = "23000"

/**
 * What PostgreSQL refuses for good is the append's fault: a value it cannot hold, or a constraint.
 *
 * @category converting
 * @since 0.1.0
 */
export const failureOf = ({ facts }: PreparedAppend) => (error: WriteError): EventStoreError => {
  if (error._tag === "ProjectionRefused") return new EventStoreError({ reason: error })
  if (error._tag === "TransactionError" || !/^(22|23)/.test(SqlState.codeOf(error) ?? "")) {
    return unavailable("append", error)
  }
  const { cause } = error.reason
  const reason = Predicate.hasProperty(cause, "constraint") && cause.constraint === "fact_validity"
    ? endsBeforeRecording(facts)
    : new InvalidAppend({
      path: SqlState.codeOf(error) === refused ? "publications" : "facts",
      message: Predicate.hasProperty(cause, "message") ? String(cause.message) : error.message
    })
  return new EventStoreError({ reason })
}
