/**
 * How far projections are, and how their rebuilds come along.
 *
 * @since 0.1.0
 */
import type { EventStore, EventStoreError } from "@strata/event-store/EventStore"
import type { Position } from "@strata/event-store/Fact"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Applied, Generation, State as GenerationState } from "./Generation.ts"
import type { ParkedKey } from "./ParkedKeys.ts"
import type { Projection } from "./Projection.ts"
import type { Known, ProjectionProgress, State } from "./ProjectionProgress.ts"

/**
 * How far a projection is, as its readers see it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Status {
  readonly name: string
  readonly version: number
  /** The last fact applied or passed over, in every partition. */
  readonly position: Position
  /** The last fact of the log. */
  readonly head: Position
  /** Facts between the two. */
  readonly lag: bigint
  /** Age in seconds of the oldest fact that is not applied, `0` when there is none. */
  readonly lagSeconds: number
  readonly state: State
  /** Why it failed, or the error of the first key that waits. */
  readonly error: string | null
  /** Keys that wait, since a fact of theirs cannot be applied. */
  readonly parked: number
  readonly generations: ReadonlyArray<GenerationStatus>
}

/**
 * How far a generation is.
 *
 * @category models
 * @since 0.1.0
 */
export interface GenerationStatus {
  readonly number: number
  readonly version: number
  readonly state: GenerationState
  /** How facts reach it. */
  readonly applied: Applied
  /** The PostgreSQL schema of its tables. */
  readonly schema: string
  readonly partitions: number
  readonly position: Position
  /** Facts of the log after that. */
  readonly lag: bigint
  /** Facts of the log a second, over the last ten seconds; null when nothing is known. */
  readonly rate: number | null
  /** Seconds until it has caught up, at that rate. */
  readonly etaSeconds: number | null
  readonly parked: number
  /** Why it stopped, or the error of the first key that waits. */
  readonly error: string | null
  /** Whether it waits for a person to switch to it. */
  readonly manual: boolean
}

/**
 * Makes the effect that tells the status.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ look, parked, progress, projections, store }: {
  readonly projections: ReadonlyArray<Projection>
  readonly store: EventStore["Service"]
  readonly look: Effect.Effect<unknown, SqlError>
  readonly progress: ProjectionProgress
  readonly parked: (generation: Generation) => Effect.Effect<ReadonlyArray<ParkedKey>, SqlError>
}) => {
  const generationStatus = Effect.fnUntraced(function*(known: Known, head: Position) {
    const { generation, position } = known
    const waiting = yield* parked(generation)
    const [first] = waiting
    const lag = head > position ? head - position : 0n
    return {
      number: generation.number,
      version: generation.version,
      state: generation.state,
      applied: generation.applied,
      schema: generation.schema,
      partitions: generation.partitions,
      position,
      lag,
      rate: known.rate,
      etaSeconds: lag === 0n ? 0 : known.rate === null || known.rate <= 0 ? null : Number(lag) / known.rate,
      parked: waiting.length,
      error: known.error ?? (first === undefined ? null : `Fact ${first.position}: ${first.error}`),
      manual: generation.manual
    } satisfies GenerationStatus
  })

  return Effect.gen(function*() {
    yield* look
    const head = yield* store.head
    const since = oldestAfter(store)
    return yield* Effect.forEach(projections, ({ name, version }) =>
      Effect.gen(function*() {
        const generations = yield* Effect.forEach(progress.all(name), (known) => generationStatus(known, head))
        const live = generations.find(({ state }) => state === "live")
        const { error, now, position, state } = progress.stateOf(name)
        const lag = head > position ? head - position : 0n
        const oldest = lag === 0n ? undefined : yield* since(position)
        const waiting = live?.parked ?? 0
        return {
          name,
          version: live?.version ?? version,
          position,
          head,
          lag,
          lagSeconds: now === undefined || oldest === undefined || oldest > now ? 0 : Number(now - oldest) / 1e6,
          state: state === "running" && waiting > 0 ? "parked" : state,
          error: error ?? live?.error ?? null,
          parked: waiting,
          generations
        } satisfies Status
      }))
  })
}

/** When the fact after a position was recorded; asked once for projections at the same one. */
const oldestAfter = (store: EventStore["Service"]) => {
  const known = new Map<Position, Timestamp.Timestamp | undefined>()
  return Effect.fnUntraced(function*(position: Position): Effect.fn.Return<
    Timestamp.Timestamp | undefined,
    EventStoreError
  > {
    if (!known.has(position)) {
      const recordedAt = yield* store.readLog({ after: position, limit: 1 }).pipe(
        Effect.map(([fact]) => fact?.recordedAt),
        Effect.catchReason("EventStoreError", "FactUnreadable", ({ recordedAt }) => Effect.succeed(recordedAt))
      )
      known.set(position, recordedAt)
    }
    return known.get(position)
  })
}
