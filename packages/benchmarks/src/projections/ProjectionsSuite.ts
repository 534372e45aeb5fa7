/**
 * Projections beside Emmett's and beside plain SQL: catching up, building in parallel, how soon readers see a fact and a correction, and
 * figures over a million messages.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Callers from "../Callers.ts"
import * as Server from "../event-store/Server.ts"
import type { BenchmarkError, Goal, Lane, RowName, Sample, Suite, Watch, Work } from "../Suite.ts"
import * as Archive from "./Archive.ts"
import * as EmmettModels from "./EmmettModels.ts"
import * as PlainModels from "./PlainModels.ts"
import * as StrataModels from "./StrataModels.ts"

/** Conversations. */
const sizes = {
  full: { catchUp: 52_632, rebuilt: 10_527, emmett: 1_000, asked: 55_556, corrections: 100 },
  quick: { catchUp: 2_000, rebuilt: 2_000, emmett: 200, asked: 2_000, corrections: 30 }
}

/** Each round of them takes minutes, in which what is cold at its beginning does not count. */
const long = { rounds: 3, warmsUp: true }

/** Facts a second of `live`. */
const rate = 2000

const strata = (work: string, system = "Strata"): RowName => ({ work, system })
const within = (work: string, millis: number): Goal => ({
  ours: strata(work),
  against: `${millis} ms`,
  theirs: millis,
  goal: 1
})

const goals: ReadonlyArray<Goal> = [
  { ours: strata("catch up"), against: "Emmett", theirs: [{ work: "catch up", system: "Emmett" }], goal: 10 },
  {
    ours: strata("catch up"),
    against: "plain SQL",
    theirs: [{ work: "catch up", system: "plain SQL, at once" }],
    goal: 0.4
  },
  {
    ours: strata("rebuild", "Strata, 4 partitions"),
    against: "one partition",
    theirs: [strata("rebuild", "Strata, 1 partition")],
    goal: 1.6
  },
  within("lag p99", 100),
  within("correction p50", 20),
  within("figures of a period p95", 20),
  within("figures of everything p95", 20)
]

/**
 * `projections`.
 *
 * @category suites
 * @since 0.1.0
 */
export const suite: Suite = {
  name: "projections",
  open: Effect.fnUntraced(function*({ quick }) {
    const size = quick ? sizes.quick : sizes.full
    const server = yield* Server.start
    return {
      versions: { node: process.versions.node },
      settings: server.settings,
      serverPid: server.pid,
      works: works(server, size),
      goals,
      notes: [
        `catch up: ${
          size.catchUp * Archive.factsEach
        } facts into four read models (list, messages, unread, response times), facts a second. Plain SQL `
        + `fills the same tables from the same facts, a statement for each. Emmett: ${
          size.emmett * Archive.factsEach
        } such facts into the same tables, by four projectors of its consumer.`,
        `rebuild: ${size.rebuilt * Archive.factsEach} facts, each projection in one partition, and in four.`,
        `lag: ${rate} facts a second; from when an append has returned until all four show it. One process, so one partition each.`,
        `correction: of one message among ${
          size.asked * Archive.messagesEach
        } after a silence, until the four and the analytics show it, after ${StrataModels.cold} that warm up. One partition each, as for the figures.`,
        "figures: activity, response times of all and of one provider, volume, a day; periods of 1 to 365 days, and the whole.",
        "Bound of the rebuild in four partitions: both cores, 94 % busy, of which the table shows 1.7: the rest is V8's threads. One partition keeps "
        + "1.1 of them busy and V8's 0.2, since server and client work at the same time; four take 15 % more of them for a fact.",
        "Bound of a correction: the processor, 14 ms of it here and 15 in the server after a silence: 41 statements, of which 20 begin and end five "
        + "transactions. The five go on at the same time once the correction, its page and its stream are written and read, some 6 ms."
      ]
    }
  })
}

const works = (server: Server.Server, size: typeof sizes.full): ReadonlyArray<Work> => [
  {
    name: "catch up",
    ...long,
    lanes: Effect.gen(function*() {
      const url = yield* server.createDatabase("strata")
      const strata = yield* StrataModels.make(url)
      yield* strata.fill(size.catchUp)
      const plain = yield* PlainModels.make(url)
      const emmett = yield* Effect.flatMap(server.createDatabase("emmett"), EmmettModels.make)
      yield* emmett.fill(size.emmett)
      const facts = size.catchUp * Archive.factsEach
      const shared = { partitions: 4, concurrency: 4 }
      return [
        rated("Strata", "catch up", facts, (watch) => strata.rebuild(size.catchUp, shared, watch)),
        rated("plain SQL, at once", "catch up", facts, (watch) => plain.build(size.catchUp, watch)),
        rated("Emmett", "catch up", size.emmett * Archive.factsEach, (watch) => emmett.build(size.emmett, watch))
      ]
    })
  },
  {
    name: "rebuild",
    ...long,
    lanes: Effect.gen(function*() {
      const strata = yield* Effect.flatMap(server.createDatabase("strata_rebuild"), StrataModels.make)
      yield* strata.fill(size.rebuilt)
      return [1, 4].map((partitions) =>
        rated(
          `Strata, ${partitions} ${partitions === 1 ? "partition" : "partitions"}`,
          "rebuild",
          size.rebuilt * Archive.factsEach,
          (watch) => strata.rebuild(size.rebuilt, { partitions, concurrency: partitions }, watch)
        )
      )
    })
  },
  {
    name: "live",
    lanes: Effect.gen(function*() {
      const strata = yield* Effect.flatMap(server.createDatabase("strata_live"), StrataModels.make)
      return [{
        system: "Strata",
        run: (seconds, watch) =>
          Effect.map(strata.lag(rate, seconds * 3, watch), (waited) => percentiles("lag", waited, [50, 99]))
      }]
    })
  },
  {
    name: "figures",
    ...long,
    lanes: Effect.gen(function*() {
      const strata = yield* Effect.flatMap(server.createDatabase("strata_figures"), StrataModels.make)
      yield* strata.fill(size.asked)
      return [{
        system: "Strata",
        run: (_, watch) =>
          Effect.gen(function*() {
            const { period, whole } = yield* strata.ask(size.asked, watch)
            const corrected = yield* strata.correct(size.asked, size.corrections, watch)
            return [
              ...percentiles("figures of a period", period, [50, 95]),
              ...percentiles("figures of everything", whole, [50, 95]),
              ...percentiles("correction", corrected, [50, 95])
            ]
          })
      }]
    })
  }
]

const rated = (
  system: string,
  work: string,
  count: number,
  run: (watch: Watch) => Effect.Effect<number, BenchmarkError>
): Lane => ({
  system,
  run: (_, watch) => Effect.map(run(watch), (millis) => [{ work, unit: "ops/s", value: count / millis * 1000 }])
})

const percentiles = (
  work: string,
  millis: ReadonlyArray<number>,
  shares: ReadonlyArray<number>
): ReadonlyArray<Sample> => {
  const timing = { calls: millis.length, seconds: 1, latencies: Float64Array.from(millis).sort() }
  return shares.map((share) => ({
    work: `${work} p${share}`,
    unit: "ms",
    value: Callers.percentile(timing, share / 100)
  }))
}
