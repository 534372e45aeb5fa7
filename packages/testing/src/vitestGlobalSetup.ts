/**
 * One PostgreSQL server for a run of the tests, named as `globalSetup` in the vitest configuration.
 *
 * **Details**
 *
 * The server belongs to a small program of its own that ends when its standard input does. However vitest ends, even
 * killed, that program stops the server and removes everything the run has made. `STRATA_TEST_DATABASE_URL` names a
 * server to use instead, PostgreSQL 15 to 18, on which only databases with the prefix `strata_test_` are touched.
 *
 * @since 0.1.0
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { TestProject } from "vitest/node"
import * as Bundles from "./internal/bundles.ts"
import { TestRun } from "./internal/testRun.ts"

class SetupError extends Data.TaggedError("SetupError")<{ readonly message: string }> {}

/**
 * Starts the server and tells the test files of the project how to reach it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const setup = (project: Pick<TestProject, "provide" | "config">): Promise<() => Promise<void>> =>
  Effect.runPromise(Effect.provide(start(project), NodeServices.layer)).then(({ finish }) => () =>
    Effect.runPromise(finish)
  )

const start = Effect.fnUntraced(function*(project: Pick<TestProject, "provide" | "config">) {
  const scope = yield* Scope.make()
  const over = yield* Latch.make()
  const server = yield* Scope.provide(testServer(over), scope)
  const line = yield* server.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runHead,
    Effect.timeout("60 seconds")
  )
  if (Option.isNone(line)) {
    return yield* new SetupError({ message: "The PostgreSQL server for the tests did not start; the reason is above." })
  }
  const run = yield* Schema.decodeEffect(Schema.fromJsonString(TestRun))(line.value)
  project.provide("strataTestRun", run)
  project.config.env = {
    ...project.config.env,
    [Bundles.variable]: `${run.directory}/bundles`,
    // Bundles are made anew by each run.
    NODE_COMPILE_CACHE: `${run.directory}/compile-cache`
  }
  const finish = over.open.pipe(
    Effect.andThen(server.exitCode),
    Effect.timeout("40 seconds"),
    Effect.ignore,
    Effect.andThen(Scope.close(scope, Exit.void))
  )
  return { finish }
})

const extension = import.meta.url.endsWith(".ts") ? "ts" : "js"

const testServer = (over: Latch.Latch) =>
  ChildProcess.make(
    process.execPath,
    ["--conditions=strata:source", new URL(`./internal/testServer.${extension}`, import.meta.url).pathname],
    {
      stdin: { stream: Stream.fromEffectDrain(over.await) },
      stderr: "inherit",
      forceKillAfter: "30 seconds"
    }
  )
