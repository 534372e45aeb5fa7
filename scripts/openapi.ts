/**
 * Writes `packages/http-api/openapi.json` from the contract: `npm run openapi -w packages/http-api`. With `--check` it writes nothing and
 * fails when the file differs.
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { openApiJson } from "@strata/http-api/Api"
import * as Console from "effect/Console"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import process from "node:process"
import { fileURLToPath } from "node:url"

class Drifted extends Data.TaggedError("Drifted")<{ readonly message: string }> {}

const file = fileURLToPath(new URL("../packages/http-api/openapi.json", import.meta.url))

const program = Effect.gen(function*() {
  const document = openApiJson()
  const fs = yield* FileSystem.FileSystem
  const committed = yield* Effect.orElseSucceed(fs.readFileString(file), () => "")
  if (committed === document) return yield* Console.log("openapi.json is up to date")
  if (process.argv.includes("--check")) {
    return yield* new Drifted({
      message: "openapi.json differs from the contract: run npm run openapi -w packages/http-api"
    })
  }
  yield* fs.writeFileString(file, document)
  yield* Console.log(`Wrote ${file}`)
})

NodeRuntime.runMain(Effect.provide(program, NodeFileSystem.layer))
