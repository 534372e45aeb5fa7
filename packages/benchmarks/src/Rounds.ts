/**
 * Rounds: every lane in turn, again and again, without those that somebody disturbed.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Machine from "./Machine.ts"
import type { BenchmarkError, Lane, RowName, Sample, Unit, Watch } from "./Suite.ts"

/**
 * How a work is measured.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly rounds: number
  /** How long a lane runs in a round. */
  readonly seconds: number
  readonly serverPid: number
  /** Other processes may take this share of the machine's CPU time; a round in which they take more does not count. */
  readonly tolerance: number
  /** How often a lane may be run again in a round. Then its least disturbed run counts, and the row says so. */
  readonly repeats: number
  /** Whether every lane is run once, unseen, before the first round. */
  readonly warmUp: boolean
  /** Told of what is going on. */
  readonly say: (line: string) => Effect.Effect<void>
}

/**
 * The numbers of one system at one work.
 *
 * @category models
 * @since 0.1.0
 */
export interface Row extends RowName {
  readonly unit: Unit
  readonly median: number
  readonly min: number
  readonly max: number
  readonly runs: number
  /** Runs among them in which other processes took more of the machine than is tolerated. */
  readonly disturbed: number
  /** CPU that this process with those it started and the server used, in cores. */
  readonly client: number
  readonly server: number
}

/**
 * A work's rows, in the order of its lanes, and how many runs were thrown away.
 *
 * @category models
 * @since 0.1.0
 */
export interface Outcome {
  readonly rows: ReadonlyArray<Row>
  readonly discarded: number
}

interface Run {
  readonly samples: ReadonlyArray<Sample>
  readonly usage: Machine.Usage
}

/**
 * Measures the lanes of a work: once each to warm up if they need it, then in turns.
 *
 * @category constructors
 * @since 0.1.0
 */
export const measure = Effect.fnUntraced(function*(
  lanes: ReadonlyArray<Lane>,
  options: Options
): Effect.fn.Return<Outcome, BenchmarkError, FileSystem.FileSystem> {
  const taken = lanes.map((): Array<Run> => [])
  let discarded = 0

  const runOnce = Effect.fnUntraced(function*(lane: Lane) {
    const files = yield* FileSystem.FileSystem
    let usage: Machine.Usage = { client: 0, server: 0, foreign: 0 }
    const watch: Watch = (timed) =>
      Effect.map(Machine.withUsage(options.serverPid, timed), ([result, seen]) => {
        usage = seen
        return result
      }).pipe(Effect.provideService(FileSystem.FileSystem, files))
    const samples = yield* lane.run(options.seconds, watch)
    return { samples, usage } satisfies Run
  })

  const runUndisturbed = Effect.fnUntraced(function*(lane: Lane) {
    let last = yield* runOnce(lane)
    let best = last
    for (let repeat = 1; repeat <= options.repeats && last.usage.foreign > options.tolerance; repeat++) {
      discarded++
      yield* options.say(
        `${lane.system}: discarded, others took ${Math.round(last.usage.foreign * 100)} % of the machine`
      )
      yield* Effect.sleep(Duration.seconds(repeat))
      last = yield* runOnce(lane)
      if (last.usage.foreign < best.usage.foreign) best = last
    }
    return best
  })

  if (options.warmUp) {
    for (const lane of lanes) yield* lane.run(options.seconds / 2, (timed) => timed)
  }
  for (let round = 0; round < options.rounds; round++) {
    for (const [index, lane] of lanes.entries()) taken[index]!.push(yield* runUndisturbed(lane))
  }
  return { rows: lanes.flatMap((lane, index) => rowsOf(lane.system, taken[index]!, options.tolerance)), discarded }
})

const rowsOf = (system: string, runs: ReadonlyArray<Run>, tolerance: number): ReadonlyArray<Row> =>
  runs[0]!.samples.map(({ unit, work }, place): Row => {
    const values = runs.map((run) => run.samples[place]!.value).sort((a, b) => a - b)
    return {
      work,
      system,
      unit,
      median: medianOf(values),
      min: values[0]!,
      max: values[values.length - 1]!,
      runs: values.length,
      disturbed: runs.filter((run) => run.usage.foreign > tolerance).length,
      client: medianOf(runs.map((run) => run.usage.client).sort((a, b) => a - b)),
      server: medianOf(runs.map((run) => run.usage.server).sort((a, b) => a - b))
    }
  })

/** Of values in ascending order. */
const medianOf = (sorted: ReadonlyArray<number>): number => {
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
