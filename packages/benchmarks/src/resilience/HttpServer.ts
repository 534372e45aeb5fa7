/**
 * Strata's HTTP server in a process of its own.
 *
 * @since 0.1.0
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import { fileURLToPath } from "node:url"
import { BenchmarkError, failure } from "../Suite.ts"

/**
 * What differs from the server's defaults: no rate limit that could act before it sheds.
 *
 * @category constants
 * @since 0.1.0
 */
export const settings = {
  STRATA_LIMIT_GLOBAL: "1000000/1000000",
  STRATA_LIMIT_PER_USER: "1000000/1000000",
  STRATA_LIMIT_PER_IP: "1000000/1000000",
  STRATA_LIMIT_STRANGERS: "1000000/1000000"
} as const

/**
 * A server that serves.
 *
 * @category models
 * @since 0.1.0
 */
export interface HttpServer {
  readonly port: number
  readonly key: string
}

/**
 * Starts a server on a database, for the time of the scope. What it logs is thrown away.
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = Effect.fnUntraced(
  function*(options: { readonly url: Redacted.Redacted; readonly sheds: boolean }) {
    const spawner = yield* ChildProcessSpawner
    const port = yield* freePort
    const key = "benchmark-key-0123456789"
    const program = fileURLToPath(import.meta.resolve("@strata/server/main"))
    const server = yield* spawner.spawn(ChildProcess.make(
      process.execPath,
      [...process.execArgv, program],
      {
        env: {
          ...settings,
          STRATA_SHED: String(options.sheds),
          STRATA_API_KEY: key,
          DATABASE_URL: options.url,
          STRATA_DATABASE_ROLE: "strata_app",
          HOST: "127.0.0.1",
          PORT: String(port)
        },
        extendEnv: true,
        stdin: "ignore",
        stdout: "ignore",
        stderr: "inherit",
        forceKillAfter: "30 seconds"
      }
    ))
    const ended = Effect.flatMap(
      server.exitCode,
      (code) => new BenchmarkError({ message: `it ended with ${code} before it served` })
    )
    yield* Effect.raceFirst(untilReady(port), ended)
    return { port, key } satisfies HttpServer
  },
  Effect.mapError(failure("Starting the HTTP server"))
)

const freePort = Effect.scoped(NodeSocketServer.make({ host: "127.0.0.1", port: 0 })).pipe(
  Effect.map((server) => server.address._tag === "UnixPathAddress" ? 0 : server.address.port)
)

/** Until then it answers with 503, or not at all. */
const untilReady = (port: number) =>
  HttpClient.HttpClient.pipe(
    Effect.flatMap((client) => HttpClient.filterStatusOk(client).get(`http://127.0.0.1:${port}/health`)),
    Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 600 }),
    Effect.timeout(Duration.minutes(1)),
    Effect.provide(NodeHttpClient.layerUndici),
    Effect.asVoid
  )
