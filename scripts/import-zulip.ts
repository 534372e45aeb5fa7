/**
 * Imports a Zulip archive: `npm run --silent import:zulip -- FILE.tar.gz [--json]`.
 *
 * Prints what the read models hold afterwards; with `--json` that is the only thing on standard output, as one object.
 * Progress and what was left out go to standard error. It can be interrupted, and run again, at any time: nothing is
 * imported twice. Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted.
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { application } from "./application.ts"
import { progressBar } from "./output.ts"
import { run } from "./program.ts"
import { topicFiles } from "./zulip/ZulipArchive.ts"
import { describeSummary, importTopics, type Skipped } from "./zulip/ZulipImport.ts"

const toJson = Schema.encodeEffect(Schema.fromJsonString(Schema.Unknown))

const reportSkipped = (skipped: ReadonlyArray<Skipped>) =>
  [
    `${skipped.length} file${skipped.length === 1 ? " was" : "s were"} skipped:`,
    ...skipped.map(({ path, reason }) => `  ${path}: ${reason}`)
  ].join("\n")

export const program = Command.make("import:zulip", {
  file: Argument.String("FILE.tar.gz").pipe(Argument.withDescription("The archive")),
  json: Flag.Boolean("json").pipe(Flag.withDescription("Print the summary as one JSON object"), Flag.withDefault(false))
}).pipe(
  Command.withDescription("Import a Zulip archive into Strata"),
  Command.withHandler(Effect.fnUntraced(function*({ file, json }) {
    const bar = progressBar(process.stderr)
    const { skipped, summary } = yield* importTopics(topicFiles(file, (read) => bar.show(read, "of the archive read")))
      .pipe(
        Effect.ensuring(Effect.sync(bar.clear)),
        Effect.provide(application)
      )
    if (skipped.length > 0) yield* Console.error(reportSkipped(skipped))
    yield* Console.log(json ? yield* toJson(summary) : describeSummary(summary))
  }))
)

if (import.meta.main) run(program)
