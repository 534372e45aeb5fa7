import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"

const readme = fileURLToPath(new URL("../../README.md", import.meta.url))
const main = new URL("../../packages/server/src/main.ts", import.meta.url)

/** What differs from one run to the next: times, ids, cursors, and what follows from the moment of the request. */
const normalize = (text: string) =>
  text
    .replaceAll(/"\d{4}-\d\d-\d\dT[^"]*Z"/g, "\"<time>\"")
    .replaceAll(/"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"/g, "\"<uuid>\"")
    .replaceAll(/"(traceId|nextCursor|olderCursor|newerCursor)":"[^"]*"/g, "\"$1\":\"<opaque>\"")

layer(Layer.merge(PostgresTest.layer(), NodeServices.layer), { excludeTestServices: true })("README", (it) => {
  it.effect("the tour prints what it says", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* fs.makeTempDirectoryScoped()
      const server = yield* ChildProgram.start(main, {
        env: {
          DATABASE_URL: yield* PostgresTest.url,
          STRATA_DATA_DIR: `${directory}/.strata`,
          STRATA_LOG_FORMAT: "json",
          STRATA_API_KEY: undefined,
          PORT: "0"
        }
      })
      const ready = yield* server.waitFor((line) => line.includes("serves at"))
      const address = /http:\/\/127\.0\.0\.1:\d+/.exec(ready)?.[0]
      assert.isDefined(address)

      const blocks = [...(yield* fs.readFileString(readme)).matchAll(/```(sh|text)\n([\s\S]*?)```/g)]
      const setUp = blocks[0]![2]!.replace("http://127.0.0.1:8080", address)
      let answered = 0
      for (const [index, [, kind, content = ""]] of blocks.entries()) {
        if (kind !== "text") continue
        const script = `${setUp}\n${blocks[index - 1]![2]}`
        const output = yield* ChildProcess.make("bash", ["-c", script], { cwd: directory, stdin: "ignore" }).pipe(
          Effect.flatMap((child) => Stream.mkString(Stream.decodeText(child.stdout))),
          Effect.scoped
        )
        deepStrictEqual(normalize(output), normalize(content.trimEnd()))
        answered++
      }
      assert.strictEqual(answered, 7)
      yield* server.terminate
      assert.strictEqual(yield* server.exitCode, 0)
    }), 60_000)
})
