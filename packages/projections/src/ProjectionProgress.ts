/**
 * What this process knows of how far generations are: told by its own partitions, read from the checkpoints of others.
 *
 * @since 0.1.0
 */
import type { NamedRow } from "@strata/event-store/DurableSubscriptionCheckpoints"
import { beginning, type Position } from "@strata/event-store/Fact"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import { type Generation, subscriptionOf } from "./Generation.ts"

/**
 * What a projection is doing: `new` before it runs anywhere, `running`, `parked` while keys wait, `paused`, or `failed`: stopped
 * at a fact.
 *
 * @category models
 * @since 0.1.0
 */
export type State = "new" | "running" | "parked" | "paused" | "failed"

/**
 * A generation and how far it is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Known {
  readonly generation: Generation
  /** The last fact that is applied or not wanted in every partition. */
  readonly position: Position
  readonly state: Exclude<State, "parked">
  /** Why it failed. */
  readonly error: string | null
  /** The database's clock when it was looked at last. */
  readonly now: Timestamp.Timestamp | undefined
  /** Facts of the log a second, over the last ten seconds; null when nothing is known. */
  readonly rate: number | null
}

/**
 * A projection that has not reached a position.
 *
 * @category models
 * @since 0.1.0
 */
export interface Behind {
  readonly name: string
  readonly position: Position
  readonly state: State
}

/** What is kept of a generation. */
interface Entry {
  generation: Generation
  readonly positions: Map<number, Position>
  /** Partitions that this process has told of. */
  readonly own: Set<number>
  rows: ReadonlyArray<NamedRow>
  readonly samples: Array<{ readonly at: Timestamp.Timestamp; readonly position: Position }>
}

/** Who waits until some have reached a position. */
interface Waiting {
  readonly names: ReadonlyArray<string>
  readonly target: Position
  readonly settle: () => void
}

/**
 * Nothing known yet.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = () => {
  const entries = new Map<number, Entry>()
  const failures = new Map<string, string>()
  const waiting = new Set<Waiting>()

  const entryOf = (generation: Generation): Entry => {
    const known = entries.get(generation.id)
    if (known !== undefined) return known
    const made: Entry = { generation, positions: new Map(), own: new Set(), rows: [], samples: [] }
    entries.set(generation.id, made)
    return made
  }

  /** Checkpoints come late; a position that was reached stays reached. */
  const advance = ({ positions }: Entry, partition: number, position: Position) => {
    if (position > (positions.get(partition) ?? -1n)) positions.set(partition, position)
  }

  const knownOf = (entry: Entry): Known => {
    const { generation, rows, samples } = entry
    const stopped = rows.find(({ error, owner }) => error !== null && owner !== null)
    const [first] = samples
    const last = samples.at(-1)
    return {
      generation,
      position: positionOf(entry),
      state: stopped !== undefined
        ? "failed"
        // The subscription of an inline one is at rest.
        : rows[0]?.paused === true && generation.applied !== "inline"
        ? "paused"
        : rows.length === 0
        ? "new"
        : "running",
      error: stopped?.error ?? null,
      now: rows[0]?.now,
      rate: first === undefined || last === undefined || last.at === first.at
        ? null
        : Number(last.position - first.position) * 1e6 / Number(last.at - first.at)
    }
  }

  const all = (name: string): ReadonlyArray<Known> =>
    [...entries.values()].filter(({ generation }) => generation.name === name)
      .toSorted((a, b) => a.generation.number - b.generation.number).map(knownOf)

  const liveEntry = (name: string): Entry | undefined =>
    [...entries.values()].find(({ generation }) => generation.name === name && generation.state === "live")

  /** The one that readers see. */
  const live = (name: string): Known | undefined => {
    const entry = liveEntry(name)
    return entry === undefined ? undefined : knownOf(entry)
  }

  /** What it is to readers. What this process cannot run has failed, whatever others do. */
  const stateOf = (name: string): Pick<Known, "position" | "state" | "error" | "now"> => {
    const failure = failures.get(name)
    const { error = null, now, position = beginning, state = "new" } = live(name) ?? {}
    return failure === undefined
      ? { position, state, error, now }
      : { position, state: "failed", error: failure, now }
  }

  const hasReached = (name: string, target: Position): boolean => {
    const entry = liveEntry(name)
    return entry !== undefined && positionOf(entry) >= target
  }

  /** Those that have not reached a position. */
  const behind = (names: ReadonlyArray<string>, target: Position): ReadonlyArray<Behind> =>
    names.flatMap((name) => {
      const { position, state } = stateOf(name)
      return position < target ? [{ name, position, state }] : []
    })

  const isSettled = ({ names, target }: Pick<Waiting, "names" | "target">): boolean => {
    const left = names.filter((name) => !hasReached(name, target))
    return left.length === 0 || behind(left, target).some(({ state }) => state === "failed")
  }

  /** Waits until all have reached a position, or one has failed before it. */
  const settled = (names: ReadonlyArray<string>, target: Position): Effect.Effect<void> =>
    Effect.callback<void>((resume) => {
      const one: Waiting = { names, target, settle: () => resume(Effect.void) }
      if (isSettled(one)) return one.settle()
      waiting.add(one)
      return Effect.sync(() => waiting.delete(one))
    })

  const wake = Effect.sync(() => {
    for (const one of waiting) {
      if (!isSettled(one)) continue
      waiting.delete(one)
      one.settle()
    }
  })

  return {
    all,
    live,
    stateOf,
    behind,
    settled,
    /** News from a partition of this process. */
    told: (generation: Generation, partition: number, position: Position): Effect.Effect<void> =>
      Effect.suspend(() => {
        const entry = entryOf(generation)
        const before = positionOf(entry)
        entry.own.add(partition)
        advance(entry, partition, position)
        return positionOf(entry) > before ? wake : Effect.void
      }),
    /** Whether this process has told of all partitions of these: then it is the first to know how far they are. */
    isTold: (names: ReadonlyArray<string>): boolean =>
      names.every((name) => {
        const entry = liveEntry(name)
        return entry !== undefined && entry.own.size === entry.generation.partitions
      }),
    /** A projection that this process cannot run; none when it can. */
    failedHere: (name: string, error: string | undefined): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (error === undefined) failures.delete(name)
        else failures.set(name, error)
        return wake
      }),
    /** All generations that there are, and the checkpoints of their partitions. */
    read: (generations: ReadonlyArray<Generation>, rows: ReadonlyArray<NamedRow>): Effect.Effect<void> =>
      Effect.suspend(() => {
        const ids = new Set(generations.map(({ id }) => id))
        for (const id of entries.keys()) if (!ids.has(id)) entries.delete(id)
        for (const generation of generations) {
          const entry = entryOf(generation)
          const name = subscriptionOf(generation)
          entry.generation = generation
          entry.rows = rows.filter((row) => row.name === name)
          for (const { partition, position } of entry.rows) advance(entry, partition, position)
          const now = entry.rows[0]?.now
          if (now !== undefined) sample(entry, now)
        }
        return wake
      })
  }
}

/**
 * What this process knows.
 *
 * @category models
 * @since 0.1.0
 */
export type ProjectionProgress = ReturnType<typeof make>

const positionOf = ({ generation, positions }: Entry): Position => {
  let least = positions.get(0) ?? beginning
  for (let partition = 1; partition < generation.partitions; partition++) {
    const position = positions.get(partition) ?? beginning
    if (position < least) least = position
  }
  return least
}

const sample = (entry: Entry, at: Timestamp.Timestamp) => {
  const { samples } = entry
  if (at - (samples.at(-1)?.at ?? 0n) < 250_000n) return
  samples.push({ at, position: positionOf(entry) })
  while (samples.length > 2 && at - samples[0]!.at > 10_000_000n) samples.shift()
}
