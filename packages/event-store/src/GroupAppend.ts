/**
 * Group append: appends that arrive while a batch commits are written together by the next one.
 *
 * **Details**
 *
 * One batch is one statement, one round trip and one commit, whatever it holds. There is no timer: an append that
 * finds nobody writing is written at once by its caller, and load makes the batches. Each append in a batch succeeds or
 * fails alone. An append that is interrupted is not waited for: it is stored whole or not at all.
 *
 * Two batches may be on their way: while one commits, the next is made, sent, and waits for the store's row.
 *
 * Where work is registered that belongs to every append (see `CommitWork`), a batch is a transaction that ends with it. What the work
 * refuses is refused as what PostgreSQL refuses: the batch is taken apart, and only the append in question fails.
 *
 * A batch whose connection is lost is sent again as it was: what it did commit is recognized by its event ids and
 * answered with the first result, so an append whose caller still waits is stored exactly once.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Retrying from "@strata/postgres/Retrying"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as AppendStatement from "./AppendStatement.ts"
import type { CommitWorks } from "./CommitWork.ts"
import { type EventStoreError } from "./EventStore.ts"
import { EventStorePolicies } from "./EventStorePolicies.ts"
import type { Position } from "./Fact.ts"
import type { PreparedAppend } from "./PreparedAppend.ts"
import * as Spans from "./Spans.ts"

/**
 * Writes appends to one store.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupAppend {
  /** Writes with whatever else is waiting, and commits. */
  readonly append: (append: PreparedAppend) => Effect.Effect<AppendStatement.Outcome, EventStoreError>
  /** Writes at once by one statement, in the transaction the caller is in. */
  readonly write: (append: PreparedAppend) => Effect.Effect<AppendStatement.Outcome, EventStoreError>
}

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
  /** What is done in the transactions that write. */
  readonly work: CommitWorks
  /** What this store's notifications say after the position. */
  readonly signature: string
  /** Called with the store's new head after each commit, and whether that has told other processes. */
  readonly committed: (head: Position, isTold: boolean) => Effect.Effect<void>
}

/** Bounds of a batch, and of the appends waiting for one: past `waiting`, callers wait for room. */
const bounds = { waiting: 16_384, appends: 1024, facts: 10_000, size: 8_388_608 } as const

/** Appends that are not worth a batch of their own while a larger one is on its way: a commit costs more than they do. */
const smallBatch = 16

/** An append that waits for its batch, and the caller's span. */
interface Waiting {
  readonly append: PreparedAppend
  /** Goes on with the caller; what comes after the first answer is not heard. */
  readonly answer: (exit: Exit.Exit<AppendStatement.Outcome, EventStoreError>) => void
  readonly span: Tracer.AnySpan | undefined
  /** Its caller went away before it was sent. */
  abandoned: boolean
}

/**
 * Opens a store for writing. It closes with the scope, after what was accepted is written.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  postgres: Postgres["Service"],
  options: GroupAppendOptions
): Effect.fn.Return<GroupAppend, never, Scope.Scope> {
  const statement = AppendStatement.make(postgres, options.storeId, options.signature)
  const write = (appends: ReadonlyArray<PreparedAppend>) =>
    options.work.commit(statement(appends), AppendStatement.recordedBy)
  const { isRepeatable, isUnknown } = AppendStatement
  const { closeTimeout, roomPoll } = (yield* EventStorePolicies).store
  const waiting: Array<Waiting> = []
  let accepting = true
  let settling = false

  const settle = (batch: ReadonlyArray<Waiting>, { answers, isTold }: AppendStatement.Written) =>
    Effect.suspend(() => {
      const last = answers.findLast((answer) => answer._tag === "Written")
      // Callers go on at once, up to their next append: those make the next batch together.
      settling = true
      for (const [index, { answer }] of batch.entries()) answer(AppendStatement.toExit(answers[index]!))
      settling = false
      return last === undefined ? Effect.void : options.committed(last.appended.position, isTold)
    })

  const again = { schedule: options.retry, while: isRepeatable, isUnknown }
  // The schedule is set going by a failure only. Where a layer above a lone caller retries, what was not written is left to
  // it. What may have been written is not, unless that layer declares its call idempotent: it would make new event ids,
  // and these are what tells that it was.
  const send = (appends: ReadonlyArray<PreparedAppend>) =>
    Effect.catchIf(write(appends), isRepeatable, (error) =>
      Effect.flatMap(
        Retrying.isOurs(isUnknown(error)),
        (ours) => ours ? Retrying.retry(write(appends), again) : Effect.fail(error)
      ))

  /** A batch that PostgreSQL refuses for what one append holds is taken apart, so that only that one fails. */
  const commit = (batch: ReadonlyArray<Waiting>): Effect.Effect<void> =>
    Spans.traced(
      send(batch.map(({ append }) => append)),
      "EventStore.commit",
      () => spanOf(batch)
    ).pipe(
      Effect.flatMap((settled) => settle(batch, settled)),
      Effect.catch((error) => {
        if (batch.length > 1 && !isRepeatable(error)) {
          return Effect.forEach(batch, (waiting) => commit([waiting]), { discard: true })
        }
        return giveUp(batch, AppendStatement.failureOf(batch[0]!.append)(error))
      }),
      Effect.onInterrupt(() => giveUp(batch, closed)),
      // A defect is told to those whose append it is, and the writer goes on: others would wait for ever.
      Effect.catchDefect((defect) =>
        Effect.andThen(
          Effect.logError("A batch of appends failed unexpectedly", defect),
          giveUp(batch, AppendStatement.unavailable("append", defect))
        )
      )
    )

  // Appends on their way, by writer. A writer lives as long as there is something to write.
  const sent = new Map<symbol, number>()
  const othersOf = (writer: symbol): number | undefined => {
    for (const [other, count] of sent) if (other !== writer) return count
    return undefined
  }

  /** What a writer writes next. Alone, it leaves half of it to another one; beside a much larger batch, all of it to that. */
  const take = (writer: symbol): ReadonlyArray<Waiting> => {
    const other = othersOf(writer)
    if (other === undefined && waiting.length >= 2 * smallBatch) {
      const half = waiting.splice(0, Math.min(Math.ceil(waiting.length / 2), bounds.appends))
      sent.set(writer, half.length)
      start()
      return half
    }
    return other !== undefined && 4 * waiting.length < other ? [] : waiting.splice(0, bounds.appends)
  }

  const work = (writer: symbol): Effect.Effect<void> =>
    Effect.suspend(() => {
      const taken = take(writer)
      if (taken.length === 0) {
        sent.delete(writer)
        return Effect.void
      }
      sent.set(writer, taken.length)
      return Effect.andThen(
        Effect.forEach(batches(taken.filter(({ abandoned }) => !abandoned)), commit, { discard: true }),
        work(writer)
      )
    })

  // Let go of in the background when the database does not answer, so that nobody is kept waiting for it.
  const scope = yield* Scope.make()
  const fibers = yield* Scope.provide(FiberSet.make<void, never>(), scope)
  // A batch is many callers', so it is sent again whatever is above one of them. That multiplies nothing: at most two batches
  // are on their way, and a caller that comes again joins the next.
  const fork = yield* Retrying.outermost(FiberSet.runtime(fibers)())
  const start = () => {
    const writer = Symbol()
    sent.set(writer, 0)
    fork(work(writer))
  }

  /**
   * Whether a writer should start for what has just come: where there is none, since the last one may have ended while this
   * fiber yielded, and beside one that has little on its way.
   */
  const wantsWriter = (): boolean => {
    const [count] = sent.values()
    return !settling && (count === undefined || (sent.size === 1 && count > 0 && count < smallBatch))
  }

  yield* Effect.addFinalizer(Effect.fnUntraced(function*() {
    accepting = false
    const idle = Effect.whileLoop({ while: () => sent.size > 0, body: () => Effect.sleep(roomPoll), step: () => {} })
    const written = yield* Effect.timeoutOption(Effect.interruptible(idle), closeTimeout)
    if (Option.isNone(written)) yield* giveUp(waiting.splice(0), closed)
    yield* Effect.forkDetach(Scope.close(scope, Exit.void))
  }))

  /** Nobody is writing, so the caller does it, without a fiber of its own. Who comes meanwhile is gathered behind it. */
  const alone = (append: PreparedAppend): Effect.Effect<AppendStatement.Outcome, EventStoreError> => {
    const writer = Symbol()
    const written = Spans.traced(send([append]), "EventStore.commit", () => ({ attributes: { "strata.appends": 1 } }))
    return Effect.onExitPrimitive(
      Effect.suspend(() => {
        sent.set(writer, 1)
        return Effect.flatMap(
          Effect.mapError(written, AppendStatement.failureOf(append)),
          ({ answers: [answer], isTold }) =>
            answer!._tag === "Written"
              ? Effect.andThen(options.committed(answer!.appended.position, isTold), AppendStatement.toExit(answer!))
              : AppendStatement.toExit(answer!)
        )
      }),
      () => {
        sent.delete(writer)
        if (waiting.length > 0 && sent.size === 0) start()
        return undefined
      }
    )
  }

  const append: GroupAppend["append"] = (append) =>
    Effect.withFiber((fiber) => {
      if (!accepting) return Effect.fail(closed)
      if (waiting.length >= bounds.waiting) return whenThereIsRoom(append)
      if (sent.size === 0 && !settling) return alone(append)
      const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
      return Effect.callback((answer) => {
        const own: Waiting = { append, answer, span, abandoned: false }
        waiting.push(own)
        if (wantsWriter()) start()
        return Effect.sync(() => {
          own.abandoned = true
        })
      })
    })
  const whenThereIsRoom = (prepared: PreparedAppend) => Effect.andThen(Effect.sleep(roomPoll), append(prepared))

  return {
    append,
    write: (append) =>
      Effect.flatMap(
        Effect.mapError(
          options.work.join(statement([append]), AppendStatement.recordedBy),
          AppendStatement.failureOf(append)
        ),
        ({ answers: [answer] }) => AppendStatement.toExit(answer!)
      )
  }
})

const closed = AppendStatement.unavailable("append", new Error("the store is closed"))

const giveUp = (waiting: ReadonlyArray<Waiting>, error: EventStoreError) =>
  Effect.sync(() => {
    for (const { answer } of waiting) answer(Exit.fail(error))
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
