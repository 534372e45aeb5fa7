/**
 * A process that runs the projection `counting` over the store `default`.
 *
 * Argument: JSON with `version` and `hold`. Prints `ready`, then `batch <facts>` for each batch after its rows are inserted; with
 * `hold` it then waits for ever. Ends with its standard input.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import { EventStorePolicies } from "@strata/event-store/EventStorePolicies"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Postgres from "@strata/postgres/Postgres"
import * as Projections from "@strata/projections/Projections"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { counting, hasty } from "./counters.ts"

const Arguments = Schema.fromJsonString(Schema.Struct({ version: Schema.Int, hold: Schema.Boolean }))

const print = (line: string) => Effect.sync(() => void process.stdout.write(`${line}\n`))

const program = Effect.gen(function*() {
  const { hold, version } = yield* Schema.decodeEffect(Arguments)(process.argv[2] ?? "")
  const projection = counting({
    version,
    applied: (facts) => Effect.andThen(print(`batch ${facts}`), hold ? Effect.never : Effect.void)
  })
  yield* Layer.build(Projections.layer([projection], { batchSize: 20 }))
  yield* print("ready")
  const stdio = yield* Stdio.Stdio
  yield* Stream.runDrain(stdio.stdin)
}).pipe(Effect.scoped)

const Database = Layer.unwrap(
  Effect.map(Config.Redacted("DATABASE_URL"), (url) => Postgres.layer({ url, maxConnections: 6 }))
)

program.pipe(
  Effect.provide(
    EventStorePostgres.layer({ pollInterval: "200 millis" }).pipe(
      Layer.provideMerge(Database),
      Layer.merge(NodeStdio.layer)
    )
  ),
  Effect.provideService(EventStorePolicies, hasty),
  NodeRuntime.runMain
)
