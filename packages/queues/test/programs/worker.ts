/**
 * A process that works on the queues `killed` and `risky`: the effect of each message happens under an inbox record.
 *
 * Argument: JSON with `name` and `failpoint`. Prints a line for each event of its history; works until its input ends.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import * as Postgres from "@strata/postgres/Postgres"
import * as Handling from "@strata/queues/consuming/Handling"
import * as Inbox from "@strata/queues/Inbox"
import type { Message } from "@strata/queues/Message"
import * as Queues from "@strata/queues/Queues"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { happen } from "../correctness/Effects.ts"
import * as Failpoint from "../correctness/Failpoint.ts"
import { Line, now, type Record } from "../correctness/History.ts"
import * as Watched from "../correctness/Watched.ts"
import { killed, risky, type Task } from "../killedQueue.ts"

const Arguments = Schema.fromJsonString(
  Schema.Struct({ name: Schema.String, failpoint: Schema.NullOr(Failpoint.Failpoint) })
)
const { failpoint, name } = Schema.decodeSync(Arguments)(process.argv[2] ?? "")

const encode = Schema.encodeSync(Line)
const record: Record = (event) => void process.stdout.write(`${encode(event)}\n`)
const way = Failpoint.make(failpoint, name, record)

/** What a message says of itself, beside that it is to have an effect. */
const demur = Effect.fnUntraced(function*({ attempt, payload: { kind } }: Message<Task>) {
  if (kind === "kills") process.kill(process.pid, "SIGKILL")
  if (kind === "rejected") return yield* new Handling.Reject({ reason: "of no use" })
  if (kind === "fails" && attempt === 1) return yield* new Handling.Failed({ reason: "not the first time" })
  if (kind === "snoozes" && (yield* Random.nextBoolean)) return yield* Handling.snooze("10 millis")
})

const handle = Effect.fnUntraced(function*(message: Message<Task>) {
  const { attempt, payload: { n } } = message
  const id = Number(message.id)
  record({ _tag: "Begun", at: now(), worker: name, id, n, attempt })
  yield* way.passing("in-handler", [id])
  yield* Effect.sleep(yield* Random.nextIntBetween(0, 5))
  yield* demur(message)
  const did = yield* happen(message.id, n).pipe(Inbox.once("killed", message))
  record({ _tag: Option.isSome(did) ? "Did" : "Fenced", at: now(), worker: name, id })
  yield* way.passing("after-effect", [id])
})

const program = Effect.gen(function*() {
  yield* Effect.forkScoped(QueueWorker.run(killed, handle, { name, concurrency: 8, prefetch: 50 }))
  yield* Effect.forkScoped(QueueWorker.run(risky, handle, { name, concurrency: 2, prefetch: 10 }))
  yield* Stream.runDrain((yield* Stdio.Stdio).stdin)
}).pipe(Effect.scoped)

const Database = Layer.unwrap(
  Effect.map(Config.Redacted("DATABASE_URL"), (url) =>
    Postgres.layer({
      url,
      maxConnections: 5,
      // What a process has locked that stands still is soon let go.
      idleInTransactionTimeout: "1 second"
    }))
)

program.pipe(
  Effect.provide(
    Queues.layer.pipe(
      Layer.provideMerge(Watched.layer({ worker: name, record, way })),
      Layer.provide(Database),
      Layer.merge(NodeStdio.layer)
    )
  ),
  // Lost connections are the point of these tests.
  Effect.provideService(References.MinimumLogLevel, "None"),
  NodeRuntime.runMain
)
