/**
 * What is measured: a suite holds works, a work is done by several systems, and goals compare them.
 *
 * **Details**
 *
 * The lanes of a work are run in turns (A B C A B C …), so that what the machine does meanwhile falls on all of them. A
 * lane does the work for a while, checks that it was done, and says how fast it was.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type * as Path from "effect/Path"
import * as Predicate from "effect/Predicate"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * A larger `ops/s` is better, a smaller number of anything else.
 *
 * @category models
 * @since 0.1.0
 */
export type Unit = "ops/s" | "ms" | "bytes"

/**
 * One number that a lane found in one round.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sample {
  readonly work: string
  readonly unit: Unit
  readonly value: number
}

/**
 * Put around the part of a round that is timed: watches the machine meanwhile.
 *
 * @category models
 * @since 0.1.0
 */
export type Watch = <A, E>(timed: Effect.Effect<A, E>) => Effect.Effect<A, E>

/**
 * One system at one work, with one setting. A run takes about `seconds` and fails when the work was not done.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lane {
  readonly system: string
  readonly run: (seconds: number, watch: Watch) => Effect.Effect<ReadonlyArray<Sample>, BenchmarkError>
}

/**
 * A work, opened only when it is asked for: what it needs may take a while to make.
 *
 * @category models
 * @since 0.1.0
 */
export interface Work {
  readonly name: string
  /** For works whose answer does not vary from round to round, or varies a lot. Default: those of the run. */
  readonly rounds?: number | undefined
  /** Its lanes warm up in each of their runs, so that none is run before the first round. */
  readonly warmsUp?: boolean | undefined
  readonly lanes: Effect.Effect<ReadonlyArray<Lane>, BenchmarkError, Scope.Scope>
}

/**
 * A row of the table: one system's numbers for one work.
 *
 * @category models
 * @since 0.1.0
 */
export interface RowName {
  readonly work: string
  readonly system: string
}

/**
 * An agreed number. `ours` is compared with the best of `theirs`, or with a constant in the unit of `ours`; the ratio is
 * larger when ours is better, and the goal is met when it is at least `goal`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Goal {
  readonly ours: RowName
  readonly against: string
  readonly theirs: ReadonlyArray<RowName> | number
  readonly goal: number
}

/**
 * A suite whose systems are running.
 *
 * @category models
 * @since 0.1.0
 */
export interface OpenSuite {
  /** Versions of everything that is compared. */
  readonly versions: Readonly<Record<string, string>>
  /** Settings of the server, as the server tells them. */
  readonly settings: Readonly<Record<string, string>>
  /** The process whose children work for us. */
  readonly serverPid: number
  readonly works: ReadonlyArray<Work>
  readonly goals: ReadonlyArray<Goal>
  /** What a reader of the table must know. */
  readonly notes: ReadonlyArray<string>
}

/**
 * A suite by its name.
 *
 * @category models
 * @since 0.1.0
 */
export interface Suite {
  readonly name: string
  readonly open: (options: {
    /** Less data, shorter rounds. */
    readonly quick: boolean
  }) => Effect.Effect<OpenSuite, BenchmarkError, ChildProcessSpawner | FileSystem.FileSystem | Path.Path | Scope.Scope>
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * A system failed, or did not do the work it was measured at.
 *
 * @category errors
 * @since 0.1.0
 */
export class BenchmarkError extends Schema.TaggedError<BenchmarkError>()("BenchmarkError", {
  message: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {}

/**
 * Names what was going on when something failed.
 *
 * @category errors
 * @since 0.1.0
 */
export const failure = (doing: string) => (cause: unknown): BenchmarkError =>
  new BenchmarkError({ message: `${doing}: ${innermost(cause)}`, cause })

/** What the database or the driver said, whatever it was wrapped in. */
const innermost = (cause: unknown): string => {
  if (!Predicate.isObject(cause)) return String(cause)
  const inner = "reason" in cause && Predicate.isObject(cause.reason)
    ? cause.reason
    : "cause" in cause && Predicate.isObject(cause.cause)
    ? cause.cause
    : undefined
  return inner === undefined ? ("message" in cause ? String(cause.message) : String(cause)) : innermost(inner)
}
