/**
 * Applies facts to the generations of inline projections, in the transactions that write the facts.
 *
 * **Details**
 *
 * The transaction holds the log, and every one that writes takes its turn here. So a generation's checkpoints, which stand at the fact
 * before, move to the last new one together with what is applied: facts are applied in the order of the log, once each, by
 * whichever process writes them, or not at all.
 *
 * Where they stand further back, somebody has written who knows nothing of the projection. What is missing is applied first, when it is
 * little and can be; otherwise the generation leaves the appends, and its subscription catches up as it does with others. Whoever looks
 * after projections does the same without an append, as soon as it hears of such a fact.
 *
 * A fact that cannot be applied is refused by name. When there are several, they are applied one at a time to find it.
 *
 * @since 0.1.0
 */
import { type CommitWork, holdLog, ProjectionRefused, type Recorded } from "@strata/event-store/CommitWork"
import * as Checkpoints from "@strata/event-store/DurableSubscriptionCheckpoints"
import type { EventStore, EventStoreError } from "@strata/event-store/EventStore"
import { beginning, type Fact, type Position } from "@strata/event-store/Fact"
import type { Postgres } from "@strata/postgres/Postgres"
import * as SqlState from "@strata/postgres/SqlState"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import * as Folding from "./Folding.ts"
import { type Generation, type Generations, nearly, subscriptionOf } from "./Generation.ts"
import * as GenerationRun from "./GenerationRun.ts"
import type { Projection } from "./Projection.ts"
import type { ProjectionProgress } from "./ProjectionProgress.ts"

/**
 * What is needed to apply facts inline.
 *
 * @category options
 * @since 0.1.0
 */
export interface InlineOptions {
  readonly projections: ReadonlyArray<Projection>
  readonly store: EventStore["Service"]
  readonly postgres: Postgres["Service"]
  readonly generations: Generations
  readonly progress: ProjectionProgress
  /** Tells those who look after projections that a generation has left. */
  readonly hint: Effect.Effect<void>
}

/**
 * The work of the inline ones among some projections.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ generations, hint, postgres, progress, projections, store }: InlineOptions) => {
  const { sql, transact } = postgres

  /** Reads page by page. The last fact of the log need not be looked for, since nobody adds another one now. */
  const pages = Effect.fnUntraced(function*<E>(
    { after, upTo }: Recorded,
    isEnd: boolean,
    use: (facts: ReadonlyArray<Fact>) => Effect.Effect<void, E>
  ) {
    let from = after
    while (from < upTo) {
      const range = { after: from, limit: pageSize, ...(isEnd ? {} : { upTo }) }
      const { end, facts } = yield* store.readLogPage(range).pipe(
        Effect.catchTag("EventStoreError", (error) => {
          const cause = SqlState.sqlErrorOf(error)
          return cause === undefined ? Effect.die(error) : Effect.fail(cause)
        })
      )
      if (facts.length === 0) return yield* Effect.die(new Error(`There is no fact after position ${from}`))
      yield* use(facts)
      from = end
    }
  })

  /** What a transaction has written, which an append bounds. */
  const writtenBy = Effect.fnUntraced(function*(recorded: Recorded) {
    const written: Array<Fact> = []
    yield* pages(recorded, true, (facts) => Effect.sync(() => void written.push(...facts)))
    return written
  })

  /** What stands between the checkpoint and what was written now, by somebody who did not apply it. */
  const fillGap = (gap: Recorded, apply: Apply) =>
    gap.upTo - gap.after > nearly
      ? Effect.succeed(false)
      : transact(pages(gap, false, (facts) => Arr.isReadonlyArrayNonEmpty(facts) ? apply(facts) : Effect.void)).pipe(
        Effect.as(true),
        unlessTransient(() => Effect.succeed(false))
      )

  /** All of them, or the first that cannot be applied. */
  const applyNamed = (
    projection: Projection,
    facts: Arr.NonEmptyReadonlyArray<Fact>,
    apply: Apply
  ): Effect.Effect<void, ProjectionRefused | SqlError> => {
    const one = (fact: Fact) =>
      apply([fact]).pipe(unlessTransient((cause) => {
        const { eventId, stream } = fact
        const detail = Folding.describe(Cause.squash(cause))
        return Effect.fail(new ProjectionRefused({ projection: projection.name, eventId, stream, detail }))
      }))
    return facts.length === 1
      ? one(facts[0])
      : transact(apply(facts)).pipe(unlessTransient(() => Effect.forEach(facts, one, { discard: true })))
  }

  /** Brings one generation to the end of the log, with the facts that were written now. */
  const bring = Effect.fnUntraced(function*(
    projection: Projection,
    generation: Generation,
    { after, upTo }: Recorded,
    written: Effect.Effect<ReadonlyArray<Fact>, SqlError>
  ) {
    const held = yield* Checkpoints.hold(sql, store.name, subscriptionOf(generation))
    const [first] = held
    // Two layers of one process have the same projection.
    if (first === undefined || held.every(({ position }) => position >= upTo)) return
    const applyPart = GenerationRun.handler(
      projection,
      generation,
      Folding.make(projection, generation, { postgres, store })
    )
    const apply: Apply = (facts) => applyPart(facts, "all")
    const isWhole = held.every(({ position }) => position === first.position) &&
      (first.position >= after || (yield* fillGap({ after: first.position, upTo: after }, apply)))
    if (!isWhole) {
      yield* generations.leave(generation)
      yield* sql.afterCommit(hint)
      return yield* Effect.logWarning(`Projection ${projection.name} is behind the log: its subscription catches up`)
    }
    const facts = (yield* written).filter(({ position }) => position > first.position)
    for (const page of Arr.chunksOf(facts, pageSize)) {
      if (Arr.isReadonlyArrayNonEmpty(page)) yield* applyNamed(projection, page, apply)
    }
    yield* Checkpoints.advance(sql, first.subscription, upTo)
    yield* sql.afterCommit(told(generation, upTo))
  })

  const told = (generation: Generation, position: Position) =>
    Effect.forEach(
      Arr.range(0, generation.partitions - 1),
      (partition) => progress.told(generation, partition, position),
      { discard: true }
    )

  const work: CommitWork = Effect.fnUntraced(function*(recorded) {
    const ours = (yield* generations.inline).flatMap((generation) => {
      const projection = projections.find(({ name, version }) =>
        name === generation.name && version === generation.version
      )
      return projection === undefined ? [] : [{ generation, projection }]
    })
    if (ours.length === 0) return
    const written = yield* Effect.cached(writtenBy(recorded))
    for (const { generation, projection } of ours) yield* bring(projection, generation, recorded, written)
  })

  /** As an append would that has nothing to write. */
  const settle: Effect.Effect<void, ProjectionRefused | SqlError | TransactionError> = transact(
    Effect.flatMap(holdLog(sql, store.name), (head) => work({ after: head, upTo: head })),
    { idempotent: true }
  )

  const positionOf = ({ id, name }: Generation): Position =>
    progress.all(name).find(({ generation }) => generation.id === id)?.position ?? beginning

  /** Applies what others have written without applying it, for as long as it runs. Asks the database only of what is not known here. */
  const watch = Effect.fnUntraced(function*(
    generation: Generation
  ): Effect.fn.Return<never, EventStoreError | ProjectionRefused | SqlError | TransactionError> {
    while (true) {
      // In this order: what commits in between moves both.
      const head = yield* store.head
      const rows = yield* Checkpoints.read(sql, store.name, [subscriptionOf(generation)])
      for (const { partition, position } of rows) yield* progress.told(generation, partition, position)
      if (rows.some(({ position }) => position < head)) yield* settle
      let seen = head
      // This process's own appends come with what they apply.
      while (true) {
        yield* store.changed(seen)
        const position = positionOf(generation)
        if (position <= seen) break
        seen = position
      }
    }
  })

  return { work, watch }
}

type Apply = (facts: Arr.NonEmptyReadonlyArray<Fact>) => Effect.Effect<void, Folding.FoldError>

/** Facts that are applied at a time, as in a batch of a subscription. */
const pageSize = 1000

/** Lets what time may mend through as a database error, and handles everything else. */
const unlessTransient = <E, A2, E2, R2>(
  handle: (cause: Cause.Cause<E>) => Effect.Effect<A2, E2, R2>
) =>
<A, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A | A2, E2 | SqlError, R | R2> =>
  Effect.catchCause(effect, (cause): Effect.Effect<A2, E2 | SqlError, R2> => {
    if (Cause.hasInterrupts(cause)) return Effect.interrupt
    const errors = cause.reasons.map((reason) =>
      SqlState.sqlErrorOf(
        Cause.isFailReason(reason) ? reason.error : Cause.isDieReason(reason) ? reason.defect : undefined
      )
    )
    const [first] = errors
    return first !== undefined && errors.every((error) => passing.has(SqlState.classify(error)))
      ? Effect.fail(first)
      : handle(cause)
  })

const passing: ReadonlySet<SqlState.ErrorClass> = new Set(["retryable", "unknown-outcome", "disk-full"])

/**
 * The work of inline projections.
 *
 * @category models
 * @since 0.1.0
 */
export type InlineRun = ReturnType<typeof make>
