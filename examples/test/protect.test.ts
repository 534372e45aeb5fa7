import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"

const steps = ["shop", "1-naked", "2-deadline", "3-retry", "4-breaker", "5-fallback"]
const fileOf = (step: string) => fileURLToPath(new URL(`../protect/${step}.ts`, import.meta.url))
const guide = fileURLToPath(new URL("../../docs/protect.md", import.meta.url))

/** The blocks of a page that are marked as being in a language. */
const blocks = (page: string, language: string): ReadonlyArray<string> =>
  Array.from(page.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms")), ([, text]) => text!)

const run = (step: string) =>
  ChildProcess.make(process.execPath, ["--conditions=strata:source", fileOf(step)], { stdin: "ignore" }).pipe(
    Effect.flatMap((child) => Stream.mkString(Stream.decodeText(child.stdout))),
    Effect.scoped
  )

it.live(
  "the guide shows each step of protecting a handler as it is, and what it prints",
  () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const page = yield* fs.readFileString(guide)
      assert.deepStrictEqual(
        blocks(page, "ts"),
        yield* Effect.forEach(steps, (step) => fs.readFileString(fileOf(step)))
      )
      const printed = yield* Effect.forEach(steps.slice(1), run)
      // What the log says of circuits stands between the lines, with a time of day.
      assert.deepStrictEqual(blocks(page, "text"), printed.map((text) => text.replace(/^\[.*$\n/gm, "")))
    }).pipe(Effect.provide(NodeServices.layer)),
  60_000
)
