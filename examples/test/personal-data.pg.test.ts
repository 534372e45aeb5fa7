import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Guide from "./guide.ts"

it.live(
  "the guide shows the example of personal data as it is, and what it prints, each time it runs",
  () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const page = yield* fs.readFileString(Guide.guide("personal-data"))
      assert.include(Guide.blocks(page, "ts"), yield* fs.readFileString(Guide.example("personal-data")))
      const run = Guide.run("personal-data", yield* Guide.directory)
      const [output] = Guide.blocks(page, "text")
      // The people are others in each run.
      const number = /(?<=ada |bob )\d+/g
      for (const printed of [yield* run, yield* run]) assert.strictEqual(printed.replaceAll(number, "0"), output)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
  60_000
)
