import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Guide from "./guide.ts"

it.live(
  "the guide shows the example of two clocks as it is, and what it prints, each time it runs",
  () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const page = yield* fs.readFileString(Guide.guide("two-clocks"))
      assert.deepStrictEqual(Guide.blocks(page, "ts"), [yield* fs.readFileString(Guide.example("two-clocks"))])
      const run = Guide.run("two-clocks", yield* Guide.directory)
      const [, grid, output] = Guide.blocks(page, "text")
      for (const printed of [yield* run, yield* run]) {
        assert.strictEqual(printed, output)
        assert.isTrue(printed.includes(grid!), "the table of the story")
      }
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
  60_000
)
