import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, it } from "@effect/vitest"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"

const example = fileURLToPath(new URL("../personal-data.ts", import.meta.url))
const guide = fileURLToPath(new URL("../../docs/personal-data.md", import.meta.url))

/** The blocks of a page that are marked as being in a language. */
const blocks = (page: string, language: string): ReadonlyArray<string> =>
  Array.from(page.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms")), ([, text]) => text!)

it.live(
  "the guide shows the example of personal data as it is, and what it prints, each time it runs",
  () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const page = yield* fs.readFileString(guide)
      assert.include(blocks(page, "ts"), yield* fs.readFileString(example))

      const directory = yield* fs.makeTempDirectoryScoped({
        directory: yield* PostgresTest.directory,
        prefix: "personal-"
      })
      yield* fs.chmod(directory, 0o711)
      const run = ChildProcess.make(process.execPath, ["--conditions=strata:source", example], {
        cwd: directory,
        stdin: "ignore"
      }).pipe(
        Effect.flatMap((child) => Stream.mkString(Stream.decodeText(child.stdout))),
        Effect.scoped
      )
      const [output] = blocks(page, "text")
      // What is said of migrations comes first, and only in the first run. The people are others in each run.
      const isLog = /^\[.*$\n/gm
      const number = /(?<=ada |bob )\d+/g
      for (const printed of [yield* run, yield* run]) {
        assert.strictEqual(printed.replaceAll(isLog, "").replaceAll(number, "0"), output)
      }
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
  60_000
)
