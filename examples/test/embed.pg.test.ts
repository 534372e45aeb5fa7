import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, it } from "@effect/vitest"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"

const example = fileURLToPath(new URL("../embed.ts", import.meta.url))
const readme = fileURLToPath(new URL("../../README.md", import.meta.url))

it.live("the embedding example runs, and goes on from where it was", () =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const directory = yield* fs.makeTempDirectoryScoped({ directory: yield* PostgresTest.directory, prefix: "embed-" })
    yield* fs.chmod(directory, 0o711)
    const run = ChildProcess.make(process.execPath, ["--conditions=strata:source", example], {
      cwd: directory,
      stdin: "ignore"
    }).pipe(
      Effect.flatMap((child) => Stream.mkString(Stream.decodeText(child.stdout))),
      Effect.scoped
    )
    assert.include(yield* run, "The balance is 1250 at version 2\n")
    assert.include(yield* run, "The balance is 2500 at version 4\n")
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)), 60_000)

it.live("the README shows the embedding example as it is", () =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    assert.include(yield* fs.readFileString(readme), `\`\`\`ts\n${yield* fs.readFileString(example)}\`\`\``)
  }).pipe(Effect.provide(NodeServices.layer)))
