/**
 * Queues beside graphile-worker, pg-boss, Effect's persisted queue and plain SQL: sending, working, latency, and how they bear load,
 * growth, and transactions that are open elsewhere.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Server from "../event-store/Server.ts"
import { failure, type Suite } from "../Suite.ts"
import { goals } from "./Goals.ts"
import * as LongWorks from "./LongWorks.ts"
import * as ShortWorks from "./ShortWorks.ts"
import * as Systems from "./Systems.ts"

/** A lane runs two seconds, or half a second: the long works take a minute, or five seconds. */
const sizes = {
  full: { through: 10_000_000, deep: 1_000_000, backlog: 1_000_000, length: 30 },
  quick: { through: 500_000, deep: 100_000, backlog: 300_000, length: 10 }
}

/**
 * `queues`.
 *
 * @category suites
 * @since 0.1.0
 */
export const suite: Suite = {
  name: "queues",
  open: Effect.fnUntraced(function*({ quick }) {
    const server = yield* Server.start
    const systems = yield* Systems.make(server)
    const before = server.checkpoint
    return {
      versions: yield* versions,
      settings: server.settings,
      serverPid: server.pid,
      works: [
        ...(yield* ShortWorks.make(systems, before)),
        ...(yield* LongWorks.make(systems, { ...quick ? sizes.quick : sizes.full, before }))
      ],
      goals,
      notes
    }
  })
}

const notes = [
  "A name ends with the number of callers, or of messages by each call of one caller. What was sent is counted in the tables after " +
  "each run, and what was handled must be all of it, each once, with nothing left that is not done.",
  "drain: handlers do nothing. From the start of the worker until the tables show none that is not done, each message told to be done, " +
  "with retries and dead letters armed but in plain SQL.",
  "Strata: its defaults (10 handlers, 1,000 messages claimed ahead). With a depth limit, how deep the queue is has to be judged by each send.",
  "graphile-worker: 10 handlers; batching: 24, localQueue 500, completeJobBatchDelay 0. It deletes what is done; pg-boss keeps it, to delete " +
  "it another day, and works by two workers with batches of 500.",
  "effect's PersistedQueue sends and claims for those who wait at the moment: 100 of them.",
  "pgmq-style: without pgmq's dynamic SQL. PgQ-style: one consumer, told by batches, no retry of one message, tables not rotated. " +
  "Delete as the claim: what the claimer had is lost when it dies.",
  "latency: the sender is another process, which sends one message after the other.",
  "sustained and mixed: producer apart is another process; otherwise one process sends and handles. Time from before the send to the handler.",
  "held: drains of 50,000 messages, while somebody has written to another table of the same database and does not commit.",
  "depth: only the claims are timed, 500 messages each."
]

const Manifest = Schema.fromJsonString(Schema.Struct({ dependencies: Schema.Record(Schema.String, Schema.String) }))

/** The package's dependencies are exact, so they are the versions. */
const versions = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(import.meta.dirname, "..", "..", "package.json")
  const { dependencies } = yield* Schema.decodeEffect(Manifest)(yield* fs.readFileString(file))
  const { effect = "", "graphile-worker": graphileWorker = "", "pg-boss": pgBoss = "", pg = "" } = dependencies
  return { node: process.versions.node, effect, "graphile-worker": graphileWorker, "pg-boss": pgBoss, pg }
}).pipe(Effect.mapError(failure("Reading the versions")))
