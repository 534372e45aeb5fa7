import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { spawnSync } from "node:child_process"

/** Why there is no server to test with; undefined where there is one. */
export const missing = spawnSync("nats-server", ["--version"]).error === undefined
  ? undefined
  : "nats-server is not installed"

/** A NATS server with JetStream and a directory of its own, which can be killed and started again. */
export const make = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ directory: yield* PostgresTest.directory, prefix: "nats-" })
  const services = yield* Effect.context<Effect.Services<ReturnType<typeof ChildProcess.make>>>()

  const open = Effect.fnUntraced(function*(port: number) {
    const scope = yield* Scope.make()
    const child = yield* ChildProcess.make(
      "nats-server",
      ["-js", "-sd", directory, "-a", "127.0.0.1", "-p", String(port)],
      { killSignal: "SIGKILL" }
    ).pipe(Scope.provide(scope), Effect.provideContext(services))
    const lines = child.stderr.pipe(Stream.decodeText(), Stream.splitLines)
    let found = port
    yield* lines.pipe(
      Stream.tap((line) =>
        Effect.sync(() => {
          const [, number] = /Listening for client connections on 127\.0\.0\.1:(\d+)/.exec(line) ?? []
          if (number !== undefined) found = Number(number)
        })
      ),
      Stream.takeUntil((line) => line.includes("Server is ready")),
      Stream.runDrain
    )
    return { close: Scope.close(scope, Exit.void), port: found }
  })

  let current = yield* open(-1)
  const { port } = current
  yield* Effect.addFinalizer(() => Effect.suspend(() => current.close))
  return {
    servers: `nats://127.0.0.1:${port}`,
    kill9: Effect.suspend(() => current.close),
    start: Effect.map(open(port), (opened) => {
      current = opened
    })
  }
})
