/**
 * A process that works on the queue `killed`: it writes each message into `effect` once, in the transaction of an inbox record, and
 * every message it begins into `begun`. Some messages fail now and then. Prints `ready`, and works until its input ends.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import * as Postgres from "@strata/postgres/Postgres"
import * as Inbox from "@strata/queues/Inbox"
import * as Queues from "@strata/queues/Queues"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { killed } from "../killedQueue.ts"

const [name = "worker"] = process.argv.slice(2)

const print = (line: string) => Effect.sync(() => void process.stdout.write(`${line}\n`))

const program = Effect.gen(function*() {
  const { sql } = yield* Postgres.Postgres
  yield* Effect.forkScoped(QueueWorker.run(killed, (message) =>
    Effect.gen(function*() {
      const { id, key = null, payload } = message
      yield* Effect.sleep(yield* Random.nextIntBetween(0, 5))
      if (payload.n % 17 === 0 && (yield* Random.nextBoolean)) return yield* Effect.fail("now and then")
      yield* sql`
        insert into effect (id, key, n, attempt, worker) values (${id}, ${key}, ${payload.n}, ${message.attempt}, ${name})`
        .pipe(Inbox.once("killed", message))
    }), { name, concurrency: 8, prefetch: 50 }))
  yield* print("ready")
  yield* Stream.runDrain((yield* Stdio.Stdio).stdin)
}).pipe(Effect.scoped)

const Database = Layer.unwrap(
  Effect.map(Config.Redacted("DATABASE_URL"), (url) => Postgres.layer({ url, maxConnections: 12 }))
)

program.pipe(
  Effect.provide(Layer.mergeAll(Queues.layer.pipe(Layer.provideMerge(Database)), NodeStdio.layer)),
  NodeRuntime.runMain
)
