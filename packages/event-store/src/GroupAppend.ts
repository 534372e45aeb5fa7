/**
 * Group append: appends that arrive while a batch commits are written together by the next one.
 *
 * **Details**
 *
 * One batch is one statement, one round trip and one commit, whatever it holds. There is no timer: an append that
 * finds nobody writing is written at once, and load makes the batches. Each append in a batch succeeds or fails alone.
 *
 * A batch whose connection is lost is sent again as it was: what it did commit is recognized by its event ids and
 * answered with the first result, so an append whose caller still waits is stored exactly once.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as SqlState from "@strata/postgres/SqlState"
import type * as Timestamp from "@strata/postgres/Timestamp"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as Tracer from "effect/Tracer"
import {
  type Appended,
  ConditionFailed,
  EventStoreError,
  type ExpectedVersion,
  InvalidAppend,
  StoreUnavailable,
  VersionConflict
} from "./EventStore.ts"
import { beginning, Position, type StreamId } from "./Fact.ts"
import { endsBeforeRecording, type PreparedAppend, type PreparedFact } from "./PreparedAppend.ts"

/**
 * Writes appends to one store.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupAppend {
  /** Writes with whatever else is waiting, and commits. */
  readonly append: (append: PreparedAppend) => Effect.Effect<Outcome, EventStoreError>
  /** Writes at once by one statement, in the transaction the caller is in. */
  readonly write: (append: PreparedAppend) => Effect.Effect<Outcome, EventStoreError>
}

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
 * How appends are gathered.
 *
 * @category options
 * @since 0.1.0
 */
export interface GroupAppendOptions {
  readonly storeId: number
  /** How often, and how long, a batch whose connection was lost is sent again. */
  readonly retry: Schedule.Schedule<unknown>
  /** Called with the store's new head after each commit. */
  readonly committed: (head: Position) => Effect.Effect<void>
}

/** Bounds of a batch, and of the appends waiting for one: past `waiting`, callers wait for room. */
const bounds = { waiting: 16_384, appends: 1024, facts: 10_000, size: 8_388_608 } as const

/** Batches on their way at a time: while one commits, the next is made, sent, and waits for the store's row. */
const writers = 2

/** Appends that are not worth sharing among writers: a commit costs more than they do. */
const smallBatch = 16

/** How long closing waits until what was accepted is written. */
const closeTimeout = "10 seconds"

/** An append that waits for its batch, and the caller's span. */
interface Waiting {
  readonly append: PreparedAppend
  readonly answer: Deferred.Deferred<Outcome, EventStoreError>
  readonly span: Tracer.AnySpan | undefined
  /** Its caller went away before it was sent. */
  abandoned: boolean
}

/**
 * Starts the writer of a store. It ends with the scope, after what was accepted is written.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  postgres: Postgres["Service"],
  options: GroupAppendOptions
): Effect.fn.Return<GroupAppend, never, Scope.Scope> {
  const queue = yield* Queue.bounded<Waiting, Cause.Done>(bounds.waiting)

  // One statement, whose function locks the store's row until the transaction ends. See migrations/0001_event_store.sql.
  const write = (appends: ReadonlyArray<PreparedAppend>): Effect.Effect<ReadonlyArray<Answer>, SqlError> =>
    Effect.suspend(() => {
      const [append] = appends
      if (append !== undefined && appends.length === 1 && isSingle(append)) return writeOne(append)
      const p = parameters(appends)
      return Effect.map(
        postgres.sql<BatchRow>`
          select * from append_facts(
            ${options.storeId}::integer, ${Pg.text(p.tenant)}, ${p.streams},
            ${p.sliceAppend}, ${p.sliceStream}, ${p.sliceExpected}, ${p.sliceCount},
            ${p.factSlice}, ${p.factOrdinal}, ${p.eventId}, ${p.type}, ${p.schemaVersion},
            ${p.data}, ${p.metadata}, ${p.correlationId}, ${p.causationId}, ${p.actor},
            ${p.traceparent}, ${p.validFrom}, ${p.validTo},
            ${p.keyAppend}, ${p.key}, ${p.keyFingerprint}, ${p.keyAnswer}, ${p.keyLast},
            ${p.conditionAfter}, ${p.conditionFilters}
          )`,
        (rows) => answers(appends, rows[0]!)
      )
    })

  /** The same for one fact: half the work where load makes no batches. */
  const writeOne = (append: PreparedAppend) => {
    const fact = append.facts[0]!
    return Effect.map(
      postgres.sql<SingleRow>`
        select * from append_fact(
          ${options.storeId}::integer, ${Pg.text(append.tenant)}, ${Pg.text(fact.stream)},
          ${Pg.int(expectedCode(append.slices[0]!.expected))}, ${Pg.uuid(fact.eventId)}, ${Pg.text(fact.type)},
          ${Pg.int(fact.schemaVersion)}, ${Pg.jsonText(fact.data)}, ${Pg.jsonText(fact.metadata ?? "{}")},
          ${Pg.text(fact.correlationId)}, ${Pg.text(fact.causationId)}, ${Pg.text(append.actor)},
          ${Pg.text(append.traceparent)}, ${Pg.timestamptz(fact.validFrom)}, ${Pg.timestamptz(fact.validTo)}
        )`,
      ([row]) =>
        answers([append], {
          outcomes: [row!.outcome],
          conflicts: [1],
          actuals: [row!.version],
          offsets: [row!.position - 1n],
          bases: [row!.version],
          blocker: null,
          at: row!.at
        })
    )
  }

  const settle = Effect.fnUntraced(function*(batch: ReadonlyArray<Waiting>, settled: ReadonlyArray<Answer>) {
    let head: Position | undefined
    for (const [index, waiting] of batch.entries()) {
      const answer = settled[index]!
      if (answer._tag === "Written") head = answer.appended.position
      yield* Deferred.done(waiting.answer, toExit(answer))
    }
    if (head !== undefined) yield* options.committed(head)
  })

  /** A batch that PostgreSQL refuses for what one append holds is taken apart, so that only that one fails. */
  const commit = (batch: ReadonlyArray<Waiting>): Effect.Effect<void> =>
    write(batch.map((waiting) => waiting.append)).pipe(
      Effect.retry({ schedule: options.retry, while: isRepeatable }),
      Effect.flatMap((settled) => settle(batch, settled)),
      Effect.withSpan("EventStore.commit", spanOf(batch)),
      Effect.catch((error) => {
        if (batch.length > 1 && !isRepeatable(error)) {
          return Effect.forEach(batch, (waiting) => commit([waiting]), { discard: true })
        }
        return giveUp(batch, failureOf(error))
      }),
      Effect.onInterrupt(() => giveUp(batch, closed))
    )

  /** Waits for appends and takes a share of them, so that the other writer finds work as well. */
  let idle = 0
  const takeShare = Effect.gen(function*() {
    idle += 1
    yield* Queue.peek(queue)
    // The yield lets every caller that is ready to append do so before the batch is closed.
    yield* Effect.yieldNow
    const size = Queue.sizeUnsafe(queue)
    const share = Math.max(smallBatch, Math.ceil(size / idle))
    idle -= 1
    return size === 0 ? [] : yield* Queue.takeBetween(queue, 1, Math.min(share, bounds.appends))
  })
  const writer = takeShare.pipe(
    Effect.flatMap((taken) =>
      Effect.forEach(batches(taken.filter((waiting) => !waiting.abandoned)), commit, { discard: true })
    ),
    Effect.forever,
    Effect.catchTag("Done", () => Effect.void)
  )
  yield* Effect.acquireRelease(
    Effect.forkDetach(Effect.replicateEffect(writer, writers, { concurrency: "unbounded", discard: true })),
    Effect.fnUntraced(function*(fiber) {
      yield* Queue.end(queue)
      const ended = yield* Effect.timeoutOption(Effect.interruptible(Fiber.await(fiber)), closeTimeout)
      if (Option.isSome(ended)) return
      // The database does not answer: nobody is kept waiting for it.
      yield* giveUp(yield* Queue.clear(queue), closed)
      yield* Effect.forkDetach(Fiber.interrupt(fiber))
    })
  )

  return {
    append: (append) =>
      Effect.withFiber((fiber) => {
        const waiting: Waiting = {
          append,
          answer: Deferred.makeUnsafe(),
          span: Context.getOrUndefined(fiber.context, Tracer.ParentSpan),
          abandoned: false
        }
        return Effect.flatMap(Queue.offer(queue, waiting), (accepted) =>
          accepted
            ? Effect.onInterrupt(Deferred.await(waiting.answer), () =>
              Effect.sync(() => {
                waiting.abandoned = true
              }))
            : Effect.fail(closed))
      }),
    write: (append) => Effect.flatMap(Effect.mapError(write([append]), failureOf), ([answer]) => toExit(answer!))
  }
})

// -------------------------------------------------------------------------------------------------------- batches

/** Cuts what was taken into batches. None holds appends of two tenants, since a statement may see the rows of one only. */
const batches = (taken: ReadonlyArray<Waiting>): ReadonlyArray<ReadonlyArray<Waiting>> => {
  const first = taken[0]?.append.tenant
  return taken.every(({ append }) => append.tenant === first)
    ? batchesOfTenant(taken)
    : [...Map.groupBy(taken, ({ append }) => append.tenant).values()].flatMap(batchesOfTenant)
}

/**
 * Within bounds, with no event id and no key twice. An append with a condition is alone in its batch, where no neighbour
 * could match it unseen.
 */
const batchesOfTenant = (taken: ReadonlyArray<Waiting>): ReadonlyArray<ReadonlyArray<Waiting>> => {
  const result: Array<Array<Waiting>> = []
  let batch: Array<Waiting> = []
  let facts = 0
  let size = 0
  let seen = new Set<string>()
  let alone = false
  for (const waiting of taken) {
    const { append } = waiting
    const names = append.facts.map((fact): string => fact.eventId)
    if (append.idempotency !== null) names.push(`key ${append.idempotency.key}`)
    facts += append.facts.length
    size += append.size
    const full = facts > bounds.facts || size > bounds.size
    const apart = alone || append.condition !== null || names.some((name) => seen.has(name))
    if (batch.length > 0 && (full || apart)) {
      result.push(batch)
      batch = []
      facts = append.facts.length
      size = append.size
      seen = new Set()
    }
    for (const name of names) seen.add(name)
    batch.push(waiting)
    alone = append.condition !== null
  }
  if (batch.length > 0) result.push(batch)
  return result
}

/** A batch of one belongs to its caller's trace; a larger one has a trace of its own that links to its callers'. */
const spanOf = (batch: ReadonlyArray<Waiting>): Tracer.SpanOptionsNoTrace => {
  const spans = batch.flatMap(({ span }) => span === undefined ? [] : [span])
  const attributes = { "strata.appends": batch.length }
  if (batch.length === 1 && spans.length === 1) return { attributes, parent: spans[0] }
  return { attributes, root: true, links: spans.map((span) => ({ span, attributes: {} })) }
}

// ---------------------------------------------------------------------------------------------------- one statement

/** True when append_fact can write it: nothing else than one fact of one stream. */
const isSingle = ({ condition, facts, idempotency, slices }: PreparedAppend): boolean =>
  facts.length === 1 && slices.length === 1 && condition === null && idempotency === null

/** What append_fact returns. */
interface SingleRow {
  readonly outcome: number
  readonly version: number
  readonly position: bigint
  readonly at: Timestamp.Timestamp
}

/** What append_facts returns. */
interface BatchRow {
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

/** The arguments of append_facts: appends, slices and facts of the batch, each numbered from 1. */
const parameters = (appends: ReadonlyArray<PreparedAppend>) => {
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
  return {
    tenant,
    streams: Pg.textArray([...streams.keys()]),
    sliceAppend: Pg.intArray(slices.map(({ append }) => append)),
    sliceStream: Pg.intArray(slices.map(({ slice }) => streams.get(slice.stream)!)),
    sliceExpected: Pg.intArray(slices.map(({ slice }) => expectedCode(slice.expected))),
    sliceCount: Pg.intArray(slices.map(({ slice }) => slice.count)),
    keyAppend: Pg.intArray(keys.map(({ append }) => append)),
    key: Pg.textArray(keys.map(({ record }) => record.key)),
    keyFingerprint: Pg.textArray(keys.map(({ record }) => record.fingerprint)),
    keyAnswer: Pg.textArray(keys.map(({ record }) => record.answer)),
    keyLast: Pg.intArray(keys.map(({ last }) => last)),
    factSlice: Pg.intArray(facts.map(({ slice }) => slice)),
    factOrdinal: Pg.intArray(facts.map(({ fact }) => fact.ordinal)),
    eventId: Pg.uuidArray(facts.map(({ fact }) => fact.eventId)),
    type: Pg.textArray(facts.map(({ fact }) => fact.type)),
    schemaVersion: Pg.intArray(facts.map(({ fact }) => fact.schemaVersion)),
    data: Pg.textArray(facts.map(({ fact }) => fact.data)),
    metadata: Pg.textArray(unlessNull(facts.map(({ fact }) => fact.metadata))),
    correlationId: Pg.textArray(unlessNull(facts.map(({ fact }) => fact.correlationId))),
    causationId: Pg.textArray(unlessNull(facts.map(({ fact }) => fact.causationId))),
    actor: Pg.textArray(unlessNull(facts.map(({ append }) => append.actor))),
    traceparent: Pg.textArray(unlessNull(facts.map(({ append }) => append.traceparent))),
    validFrom: Pg.timestamptzArray(unlessNull(facts.map(({ fact }) => fact.validFrom))),
    validTo: Pg.timestamptzArray(unlessNull(facts.map(({ fact }) => fact.validTo))),
    conditionAfter: Pg.bigint(condition?.after ?? null),
    conditionFilters: Pg.jsonText(condition?.filters ?? null)
  }
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

type Answer = Outcome | { readonly _tag: "Refused"; readonly reason: VersionConflict | ConditionFailed }

const answers = (appends: ReadonlyArray<PreparedAppend>, row: BatchRow): ReadonlyArray<Answer> => {
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
        const slice = append.slices[row.conflicts[index]! - 1 - bases]!
        const actual = row.actuals[index]!
        return {
          _tag: "Refused",
          reason: new VersionConflict({ stream: slice.stream, expected: slice.expected, actual })
        }
      }
      case 2:
        return { _tag: "EventIdsSeen" }
      case 3:
        return { _tag: "KeySeen" }
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

const toExit = (answer: Answer): Exit.Exit<Outcome, EventStoreError> =>
  answer._tag === "Refused" ? Exit.fail(new EventStoreError({ reason: answer.reason })) : Exit.succeed(answer)

const unavailable = (operation: string, cause: unknown) =>
  new EventStoreError({ reason: new StoreUnavailable({ operation, cause }) })

const closed = unavailable("append", new Error("the store is closed"))

const giveUp = (waiting: ReadonlyArray<Waiting>, error: EventStoreError) =>
  Effect.forEach(waiting, ({ answer }) => Deferred.fail(answer, error), { discard: true })

/** Sending a batch again is safe whatever became of it: its event ids tell. */
export const isRepeatable = (error: SqlError): boolean => {
  const kind = SqlState.classify(error)
  return kind === "retryable" || kind === "unknown-outcome"
}

/** What PostgreSQL refuses for good is the append's fault: a value it cannot hold, or a constraint. */
const failureOf = (error: SqlError): EventStoreError => {
  if (!/^(22|23)/.test(SqlState.codeOf(error) ?? "")) return unavailable("append", error)
  const { cause } = error.reason
  const reason = Predicate.hasProperty(cause, "constraint") && cause.constraint === "fact_validity"
    ? endsBeforeRecording
    : new InvalidAppend({
      path: "facts",
      message: Predicate.hasProperty(cause, "message") ? String(cause.message) : error.message
    })
  return new EventStoreError({ reason })
}
