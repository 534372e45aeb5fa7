/**
 * Which part of a scheduler's slots is whose, and by when work of each class has to be done.
 *
 * **When to use**
 *
 * `standard` for workers that do the work of people who wait and of batches; `forCommands`, the default of a
 * `FairScheduler`, where everything is waited for.
 *
 * **Details**
 *
 * | kind of work | classes | slots | deadline |
 * | --- | --- | --- | --- |
 * | real-time | P0, P1 | 50 % guaranteed, of which 20 points are P0's alone | 100 ms |
 * | background | P2 | the 30 % that are shared by all | 30 s |
 * | batch | P3 | 20 %, the best effort | none |
 *
 * - What is guaranteed is lent while nobody it is for waits. Nothing that runs is stopped for it: the first slots that
 *   come free go back.
 * - What is reserved for P0 is never lent, so urgent work starts at once however long everything else takes.
 * - A share is at least one slot, and all shares together leave one to everybody.
 * - A deadline counts from when the work came. It ends work that runs as it ends work that waits: see `Deadline`.
 *
 * **Example** (Workers that mostly do batches)
 *
 * ```ts import.meta.vitest
 * import * as WorkerShares from "@strata/resilience/scheduling/WorkerShares"
 *
 * const shares = WorkerShares.make({ realTime: 0.3, reserved: 0.1, bestEffort: 0.6 })
 * WorkerShares.format(shares) // => "real-time 30 % (P0 alone 10 %), shared 10 %, best effort 60 %; deadlines 100ms, 30s, none"
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import type * as Priority from "./Priority.ts"

// ---------------------------------------------------------------------------------------------------------- model

const Share = Schema.Finite.pipe(
  Schema.check(Schema.isBetween({ minimum: 0, maximum: 1 })),
  Schema.annotate({ expected: "a share from 0 to 1" })
)
const Period = Schema.DurationFromString.pipe(
  Schema.check(
    Schema.makeFilter((duration: Duration.Duration) =>
      Duration.toMillis(duration) > 0 || "Expected a duration above zero, or Infinity for no deadline"
    )
  )
)

const share = (value: number) => Share.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(value)))
const period = (value: Duration.Duration) => Period.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(value)))

/**
 * Shares and deadlines. Every field has a default.
 *
 * **Details**
 *
 * - `realTime` (0.5): guaranteed to P0 and P1. `reserved` (0.2): the part of all slots, within that, which is P0's alone.
 * - `bestEffort` (0.2): guaranteed to P3. What the two leave is shared.
 * - `realTimeDeadline` (100 ms), `backgroundDeadline` (30 s), `batchDeadline` (`Infinity`, which is none).
 *
 * @category schemas
 * @since 0.1.0
 */
export const WorkerShares = Schema.Struct({
  realTime: share(0.5),
  reserved: share(0.2),
  bestEffort: share(0.2),
  realTimeDeadline: period(Duration.millis(100)),
  backgroundDeadline: period(Duration.seconds(30)),
  batchDeadline: period(Duration.infinity)
}).pipe(Schema.check(
  Schema.makeFilter(
    (shares: { readonly realTime: number; readonly reserved: number; readonly bestEffort: number }) => {
      const sum = Math.max(shares.realTime, shares.reserved) + shares.bestEffort
      return sum <= 1 + 1e-9 || `Expected shares of 100 % together at most, got ${percent(sum)}`
    }
  )
))

/**
 * @category models
 * @since 0.1.0
 */
export type WorkerShares = typeof WorkerShares.Type

/**
 * What may be said of shares: any of their fields, durations as text such as `"100 millis"`.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = typeof WorkerShares.Encoded

/**
 * Three kinds of work: somebody waits for it, it is to be done soon, or whenever there is room.
 *
 * @category models
 * @since 0.1.0
 */
export type Kind = "real-time" | "background" | "batch"

// --------------------------------------------------------------------------------------------------------- errors

/**
 * Shares that cannot be given, and why. It is thrown where they are made, so a program with them does not start.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidWorkerShares
  extends Schema.TaggedError<InvalidWorkerShares>("@strata/resilience/InvalidWorkerShares")("InvalidWorkerShares", {
    problem: Schema.String
  })
{
  override get message(): string {
    return `The shares of workers cannot be used: ${this.problem}`
  }
}

// --------------------------------------------------------------------------------------------------- constructors

const percent = (share: number): string => `${Number((share * 100).toFixed(2))} %`

const decode = Schema.decodeResult(WorkerShares)

/**
 * Shares with the defaults for what is not said. Throws `InvalidWorkerShares` on nonsense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): WorkerShares =>
  Result.getOrThrowWith(
    decode(options),
    (error) => new InvalidWorkerShares({ problem: error.message.replaceAll("\n", " ") })
  )

/**
 * The shares without any option.
 *
 * @category constants
 * @since 0.1.0
 */
export const standard: WorkerShares = make({})

/**
 * A fifth of the slots for P0 alone, the others for everybody, and no deadlines.
 *
 * @category constants
 * @since 0.1.0
 */
export const forCommands: WorkerShares = make({
  realTime: 0,
  bestEffort: 0,
  realTimeDeadline: "Infinity",
  backgroundDeadline: "Infinity"
})

/**
 * Reads shares from `<prefix>_REAL_TIME`, `_RESERVED`, `_BEST_EFFORT`, `_REAL_TIME_DEADLINE`, `_BACKGROUND_DEADLINE` and
 * `_BATCH_DEADLINE`. What is not set is as in `defaults`.
 *
 * @category config
 * @since 0.1.0
 */
export const config = (prefix: string, defaults: WorkerShares): Config.Config<WorkerShares> =>
  Config.all({
    realTime: Config.Finite(`${prefix}_REAL_TIME`).pipe(Config.withDefault(defaults.realTime)),
    reserved: Config.Finite(`${prefix}_RESERVED`).pipe(Config.withDefault(defaults.reserved)),
    bestEffort: Config.Finite(`${prefix}_BEST_EFFORT`).pipe(Config.withDefault(defaults.bestEffort)),
    realTimeDeadline: Config.Duration(`${prefix}_REAL_TIME_DEADLINE`).pipe(
      Config.withDefault(defaults.realTimeDeadline)
    ),
    backgroundDeadline: Config.Duration(`${prefix}_BACKGROUND_DEADLINE`).pipe(
      Config.withDefault(defaults.backgroundDeadline)
    ),
    batchDeadline: Config.Duration(`${prefix}_BATCH_DEADLINE`).pipe(Config.withDefault(defaults.batchDeadline))
  }).pipe(Config.mapEffect((shares) =>
    WorkerShares.makeEffect(shares).pipe(
      Effect.mapError((issue) =>
        new Config.ConfigError(new Schema.SchemaError(new SchemaIssue.Pointer([prefix], issue)))
      )
    )
  ))

// -------------------------------------------------------------------------------------------------------- getters

/**
 * The kind of work a class is.
 *
 * @category getters
 * @since 0.1.0
 */
export const kindOf = (priority: Priority.Priority): Kind =>
  priority === "P3" ? "batch" : priority === "P2" ? "background" : "real-time"

/**
 * How long work of a class may take from when it came; infinite when it has no deadline.
 *
 * @category getters
 * @since 0.1.0
 */
export const deadlineOf = (shares: WorkerShares, priority: Priority.Priority): Duration.Duration => {
  switch (kindOf(priority)) {
    case "real-time":
      return shares.realTimeDeadline
    case "background":
      return shares.backgroundDeadline
    case "batch":
      return shares.batchDeadline
  }
}

/**
 * Shares as one line to read.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (shares: WorkerShares): string => {
  const { backgroundDeadline, batchDeadline, bestEffort, realTime, realTimeDeadline, reserved } = shares
  const shared = 1 - Math.max(realTime, reserved) - bestEffort
  const deadlines = [realTimeDeadline, backgroundDeadline, batchDeadline].map((deadline) =>
    Duration.isFinite(deadline) ? Duration.format(deadline) : "none"
  )
  return `real-time ${percent(realTime)} (P0 alone ${percent(reserved)}), shared ${percent(shared)}, ` +
    `best effort ${percent(bestEffort)}; deadlines ${deadlines.join(", ")}`
}
