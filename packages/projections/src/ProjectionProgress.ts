/**
 * What this process knows of how far projections are: told by its own runners, read from the checkpoints of others.
 *
 * @since 0.1.0
 */
import { beginning, type Position } from "@strata/event-store/Fact"
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Checkpoint } from "./Checkpoint.ts"

/**
 * The last that is known of each projection.
 *
 * @category models
 * @since 0.1.0
 */
export interface ProjectionProgress {
  readonly get: (name: string) => Checkpoint | undefined
  /** News from a runner of this process. */
  readonly told: (checkpoint: Checkpoint) => Effect.Effect<void>
  /** Rows as they were read. */
  readonly read: (rows: ReadonlyArray<Checkpoint>) => Effect.Effect<void>
  /** Those that have not reached a position. */
  readonly behind: (names: ReadonlyArray<string>, target: Position) => ReadonlyArray<Behind>
  /** Waits until all have reached a position, or one has failed before it. */
  readonly settled: (names: ReadonlyArray<string>, target: Position) => Effect.Effect<void>
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
  readonly state: "new" | "running" | "failed"
}

/**
 * Nothing known yet.
 *
 * **Details**
 *
 * In a process that runs projections, each one's own runner speaks first, since it may be about to rebuild or to try again
 * while the row still says what the last process left. Of what a runner has given up, only news from further on counts.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: { readonly runsHere: boolean }
): Effect.fn.Return<ProjectionProgress> {
  const known = yield* SubscriptionRef.make<Known>(HashMap.empty())

  const isTrusted = (known: Known) => (row: Checkpoint) =>
    !options.runsHere || row.state !== "failed" && Option.exists(
        HashMap.get(known, row.name),
        (here) => here.state !== "failed" || row.version === here.version && row.position > here.position
      )

  const behind: ProjectionProgress["behind"] = (names, target) =>
    names.flatMap((name) => {
      const { position = beginning, state = "new" } = get(name) ?? {}
      return position < target ? [{ name, position, state }] : []
    })

  const isSettled = (names: ReadonlyArray<string>, target: Position) => () => {
    const left = behind(names, target)
    return left.length === 0 || left.some(({ state }) => state === "failed")
  }

  const get = (name: string) => Option.getOrUndefined(HashMap.get(SubscriptionRef.getUnsafe(known), name))

  return {
    get,
    told: (checkpoint) => SubscriptionRef.update(known, merge([checkpoint])),
    read: (rows) => SubscriptionRef.update(known, (before) => merge(rows.filter(isTrusted(before)))(before)),
    behind,
    settled: (names, target) =>
      Effect.suspend(() =>
        isSettled(names, target)()
          ? Effect.void
          : SubscriptionRef.changes(known).pipe(Stream.takeUntil(isSettled(names, target)), Stream.runDrain)
      )
  }
})

type Known = HashMap.HashMap<string, Checkpoint>

/** News may come late: of one version, the furthest counts, and a failure there outlives what was read before it. */
const merge = (news: ReadonlyArray<Checkpoint>) => (known: Known): Known =>
  news.reduce((known, checkpoint) => {
    const before = HashMap.get(known, checkpoint.name)
    return Option.exists(before, (before) => isNewer(before, checkpoint))
      ? known
      : HashMap.set(known, checkpoint.name, checkpoint)
  }, known)

const isNewer = (before: Checkpoint, news: Checkpoint): boolean =>
  before.version === news.version &&
  (before.position > news.position ||
    before.position === news.position && before.state === "failed" && news.state === "running")
