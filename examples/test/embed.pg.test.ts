import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { fileURLToPath } from "node:url"
import * as Guide from "./guide.ts"

const readme = fileURLToPath(new URL("../../README.md", import.meta.url))

it.live("the embedding example runs, and goes on from where it was", () =>
  Effect.gen(function*() {
    const run = Guide.run("embed", yield* Guide.directory)
    assert.include(yield* run, "The balance is 1250 at version 2\n")
    assert.include(yield* run, "The balance is 2500 at version 4\n")
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)), 60_000)

it.live("the README shows the embedding example as it is", () =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    assert.include(
      yield* fs.readFileString(readme),
      `\`\`\`ts\n${yield* fs.readFileString(Guide.example("embed"))}\`\`\``
    )
  }).pipe(Effect.provide(NodeServices.layer)))
