/**
 * `npm run bench -- SUITE [--json] [--only WORK] [--quick]`: measures side by side and says whether the goals are met.
 * Exit codes: 0 done, 1 failed, 2 usage, 3 a goal is not met.
 */
// First of all: schemas are compiled from here on.
import "effect/schema/SchemaJITCompiler/enable"

import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Argument from "effect/cli/Argument"
import * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as EventStoreSuite from "./event-store/EventStoreSuite.ts"
import * as Machine from "./Machine.ts"
import * as ProjectionsSuite from "./projections/ProjectionsSuite.ts"
import * as QueuesSuite from "./queues/QueuesSuite.ts"
import * as Report from "./Report.ts"
import * as ResilienceSuite from "./resilience/ResilienceSuite.ts"
import * as Rounds from "./Rounds.ts"
import { BenchmarkError, type Suite } from "./Suite.ts"
import * as TopicsSuite from "./topics/TopicsSuite.ts"

const suites: ReadonlyArray<Suite> = [
  EventStoreSuite.suite,
  QueuesSuite.suite,
  TopicsSuite.suite,
  ProjectionsSuite.suite,
  ResilienceSuite.suite
]

const bench = Command.make("bench", {
  name: Argument.String("suite").pipe(Argument.withDescription(`One of: ${suites.map(({ name }) => name).join(", ")}`)),
  json: Flag.Boolean("json").pipe(
    Flag.withDescription("Print one JSON object instead of a table"),
    Flag.withDefault(false)
  ),
  only: Flag.String("only").pipe(
    Flag.withDescription("Measure only the works with this name; several are divided by commas"),
    Flag.optional
  ),
  quick: Flag.Boolean("quick").pipe(
    Flag.withDescription("Less data and shorter rounds: to try it, not to quote it"),
    Flag.withDefault(false)
  )
}).pipe(
  Command.withDescription("Measure Strata, its peers and PostgreSQL itself side by side"),
  Command.withHandler(Effect.fnUntraced(function*({ json, name, only, quick }) {
    const suite = suites.find((suite) => suite.name === name)
    if (suite === undefined) return yield* new BenchmarkError({ message: `There is no suite ${name}` })
    const report = yield* run(suite, Option.map(only, (works) => works.split(",")), quick)
    yield* Console.log(json ? Report.json(report) : Report.table(report))
    if (report.goals.some((goal) => !goal.met)) yield* exitWith(3)
  }))
)

const run = Effect.fnUntraced(function*(suite: Suite, only: Option.Option<ReadonlyArray<string>>, quick: boolean) {
  const open = yield* suite.open({ quick })
  const works = open.works.filter(({ name }) =>
    Option.match(only, { onNone: () => true, onSome: (some) => some.includes(name) })
  )
  if (works.length === 0) {
    return yield* new BenchmarkError({
      message: `No such work. The suite ${suite.name} has: ${open.works.map(({ name }) => name).join(", ")}`
    })
  }
  const rows: Array<Rounds.Row> = []
  let discarded = 0
  for (const work of works) {
    const rounds = work.rounds ?? 5
    yield* Console.error(`${suite.name}: ${work.name}`)
    const outcome = yield* Effect.scoped(Effect.flatMap(work.lanes, (lanes) =>
      Rounds.measure(lanes, {
        rounds,
        warmUp: rounds > 1 && work.warmsUp !== true,
        seconds: quick ? 0.5 : 2,
        serverPid: open.serverPid,
        tolerance: 0.15,
        repeats: quick ? 1 : 4,
        say: (line) => Console.error(`  ${line}`)
      })))
    rows.push(...outcome.rows)
    discarded += outcome.discarded
  }
  return {
    suite: suite.name,
    machine: yield* Machine.describe,
    versions: open.versions,
    settings: { ...open.settings, node: process.execArgv.join(" ") },
    rows,
    goals: Report.judge(open.goals, rows),
    notes: open.notes,
    discarded
  } satisfies Report.Report
}, Effect.scoped)

const exitWith = (code: number) =>
  Effect.sync(() => {
    process.exitCode = code
  })

Command.run(bench, { version: "0.1.0" }).pipe(
  Effect.catch((error) =>
    CliError.isCliError(error) ? exitWith(2) : Effect.andThen(Console.error(error.message), exitWith(1))
  ),
  Effect.provide(NodeServices.layer),
  // Standard output belongs to the result.
  Effect.provideService(Logger.LogToStderr, true),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  NodeRuntime.runMain
)
