/**
 * The summaries of the log, on which fast reads of all of it rely: `npm run --silent summaries -- verify|rebuild [--store NAME]`.
 *
 * `verify` compares them with the log and prints a line of JSON for each that differs, then one with how many do. `rebuild`
 * makes them anew. Both run while servers use the database. Exit codes: 0 done, 1 failed, 2 usage, 3 something differs,
 * 130 interrupted.
 */
import * as FactSummaries from "@strata/event-store/FactSummaries"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { eventStore } from "./application.ts"
import { exitWith, print } from "./output.ts"
import { run } from "./program.ts"

const store = Flag.String("store").pipe(Flag.withDefault("default"), Flag.withDescription("Name of the store"))

const verify = Command.make("verify", { store }).pipe(
  Command.withDescription("Compare the summaries with the log"),
  Command.withHandler((options) =>
    Effect.gen(function*() {
      const { chunks, counts, upTo } = yield* FactSummaries.verify(options)
      for (const each of [...chunks, ...counts]) yield* print(each)
      yield* print({ upTo, chunks: chunks.length, counts: counts.length })
      if (chunks.length + counts.length > 0) yield* exitWith(3)
    }).pipe(Effect.provide(eventStore))
  )
)

const rebuild = Command.make("rebuild", { store }).pipe(
  Command.withDescription("Make the summaries anew"),
  Command.withHandler((options) =>
    Effect.gen(function*() {
      yield* print({ upTo: yield* FactSummaries.rebuild(options) })
    }).pipe(Effect.provide(eventStore))
  )
)

export const program = Command.make("summaries").pipe(
  Command.withDescription("Compare the summaries of the log with the log, or make them anew"),
  Command.withSubcommands([verify, rebuild])
)

if (import.meta.main) run(program)
