import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, it } from "@effect/vitest"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"

const steps = ["1-outbox", "2-topic", "3-queue"]
const fileOf = (step: string) => fileURLToPath(new URL(`../messaging/${step}.ts`, import.meta.url))
const guide = fileURLToPath(new URL("../../docs/outbox-topics-queues.md", import.meta.url))

/** The blocks of a page that are marked as being in a language. */
const blocks = (page: string, language: string): ReadonlyArray<string> =>
  Array.from(page.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms")), ([, text]) => text!)

it.live(
  "the guide of outbox, topics and queues shows each program as it is, and what it prints",
  () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const page = yield* fs.readFileString(guide)
      assert.deepStrictEqual(
        blocks(page, "ts"),
        yield* Effect.forEach(["database", ...steps], (step) => fs.readFileString(fileOf(step)))
      )
      const directory = yield* fs.makeTempDirectoryScoped({
        directory: yield* PostgresTest.directory,
        prefix: "messaging-"
      })
      yield* fs.chmod(directory, 0o711)
      const printed = yield* Effect.forEach(steps, (step) =>
        ChildProcess.make(process.execPath, ["--conditions=strata:source", fileOf(step)], {
          cwd: directory,
          stdin: "ignore"
        }).pipe(
          Effect.flatMap((child) =>
            Stream.mkString(Stream.decodeText(child.stdout))
          ),
          Effect.scoped
        ))
      // What the log says of the database stands between the lines, with a time of day.
      assert.deepStrictEqual(blocks(page, "text"), printed.map((text) => text.replace(/^\[\d\d:.*\n/gm, "")))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
  60_000
)
