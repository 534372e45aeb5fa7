/**
 * Uses the embedded server of a directory through the layers until standard input ends: prints `serving`, and for every
 * line it reads the port and the start of the server as a query tells them. Arguments: the directory.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as EmbeddedPostgres from "@strata/postgres/EmbeddedPostgres"
import * as Postgres from "@strata/postgres/Postgres"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { smallServer } from "../smallServer.ts"

const Embedded = EmbeddedPostgres.layer({ directory: process.argv[2], initialSync: false, settings: smallServer })
const Database = Layer.unwrap(Effect.map(EmbeddedPostgres.url, (url) => Postgres.layer({ url })))

const program = Effect.gen(function*() {
  const { sql } = yield* Postgres.Postgres
  const stdio = yield* Stdio.Stdio
  yield* Console.log("serving")
  yield* Stream.runForEach(stdio.stdin, () =>
    sql<{ readonly server: string }>`
      select current_setting('port') || ' ' || extract(epoch from pg_postmaster_start_time()) as server
    `.pipe(
      Effect.retry(Schedule.spaced("100 millis")),
      Effect.flatMap(([row]) => Console.log(`server ${row?.server}`))
    ))
})

NodeRuntime.runMain(
  Effect.provide(program, Database.pipe(Layer.provide(Embedded), Layer.provideMerge(NodeServices.layer)))
)
