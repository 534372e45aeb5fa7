/**
 * A process that sends to the queue `killed` in all ways there are, never more than a few hundred messages ahead of those who work.
 *
 * Argument: JSON with `name`, `first` (the number of its first message) and `failpoint`. Prints a line for each event of its
 * history; sends until its input ends.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import * as Postgres from "@strata/postgres/Postgres"
import type { NewMessage, Sent } from "@strata/queues/Message"
import * as Queues from "@strata/queues/Queues"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Failpoint from "../correctness/Failpoint.ts"
import { Line, now, type Record } from "../correctness/History.ts"
import * as Watched from "../correctness/Watched.ts"
import { killed, type Task } from "../killedQueue.ts"

const Arguments = Schema.fromJsonString(
  Schema.Struct({ name: Schema.String, first: Schema.Int, failpoint: Schema.NullOr(Failpoint.Failpoint) })
)
const { failpoint, first, name } = Schema.decodeSync(Arguments)(process.argv[2] ?? "")

const encode = Schema.encodeSync(Line)
const record: Record = (event) => void process.stdout.write(`${encode(event)}\n`)

/** Between two calls of a fiber: what is looked for happens between processes, and not since there is no end of messages. */
const pause = "20 millis"
/** Messages ahead of those who work. */
const ahead = 60
/** Fibers that send, each with keys of its own. */
const fibers = 2
/** Numbers that are set aside for one call. */
const stride = 10

type Messages = ReadonlyArray<NewMessage<Task>>

const kindOf = (n: number): Task["kind"] => n % 17 === 0 ? "fails" : n % 19 === 0 ? "snoozes" : "plain"

const messages = (
  from: number,
  count: number,
  fields: (n: number) => Partial<NewMessage<Task>> = () => ({})
): Messages =>
  Array.from({ length: count }, (_, index) => {
    const n = from + index
    return { payload: { n, kind: kindOf(n) }, priority: n % 11, ...fields(n) }
  })

const asked = (messages: Messages): void => {
  for (const { key = null, payload: { n } } of messages) record({ _tag: "Asked", at: now(), n, key })
}
const told = (messages: Messages, sent: ReadonlyArray<Sent>): void => {
  for (const [index, { payload: { n } }] of messages.entries()) {
    record({ _tag: "Told", at: now(), n, id: Number(sent[index]!.id) })
  }
}
const refused = (messages: Messages): void => {
  for (const { payload: { n } } of messages) record({ _tag: "Refused", at: now(), n })
}

const plainly = Effect.fnUntraced(function*(messages: Messages) {
  asked(messages)
  told(messages, yield* (yield* Queues.Queues).send(killed, messages))
})

/** Again and again until it is known that they are there: a unique key makes them one. */
const untilTold = (messages: Messages) => Effect.retry(plainly(messages), { schedule: Schedule.spaced("20 millis") })

class ChangedMind extends Schema.TaggedError<ChangedMind>()("ChangedMind", {}) {}

/** In a transaction that is committed, or rolled back after the messages were sent. */
const transacted = Effect.fnUntraced(function*(messages: Messages, commits: boolean) {
  const queues = yield* Queues.Queues
  const { transact } = yield* Postgres.Postgres
  asked(messages)
  const sending = Effect.tap(
    queues.send(killed, messages),
    () => commits ? Effect.void : Effect.fail(new ChangedMind())
  )
  yield* Effect.matchEffect(transact(sending), {
    onSuccess: (sent) => Effect.sync(() => told(messages, sent)),
    onFailure: (error) => {
      if (error._tag !== "TransactionError" || error.reason._tag !== "OutcomeUnknown") refused(messages)
      return error._tag === "ChangedMind" ? Effect.void : Effect.fail(error)
    }
  })
})

const ways = [
  (from: number) => plainly(messages(from, 1)),
  (from: number, keyOf: (n: number) => string) =>
    plainly(messages(from, 10, (n) => n % 3 === 0 ? { key: keyOf(n) } : {})),
  (from: number, keyOf: (n: number) => string) => transacted(messages(from, 4, (n) => ({ key: keyOf(n) })), true),
  (from: number) => transacted(messages(from, 2), false),
  (from: number) =>
    untilTold(messages(from, 1, (n) => ({
      unique: { key: `${n}`, during: ["waiting", "later", "running", "dead", "done"], window: "1 hour" }
    }))),
  (from: number) => plainly(messages(from, 3, () => ({ delay: "50 millis" })))
]

/** Without end. Who was not answered waits until there is somebody to answer. */
const send = (fiber: number) =>
  Effect.gen(function*() {
    const queues = yield* Queues.Queues
    const keyOf = (n: number) => `${name}-${fiber}-${n % 2}`
    for (let call = 0;; call++) {
      yield* Effect.repeat(
        Effect.retry(queues.stats(killed), { schedule: Schedule.spaced("20 millis") }),
        {
          until: ({ later, parked, ready }) => ready + later + parked < ahead,
          schedule: Schedule.spaced("20 millis")
        }
      )
      yield* Effect.ignore(ways[call % ways.length]!(first + (call * fibers + fiber) * stride, keyOf))
      yield* Effect.sleep(pause)
    }
  })

const program = Effect.gen(function*() {
  for (let fiber = 0; fiber < fibers; fiber++) yield* Effect.forkScoped(send(fiber))
  yield* Stream.runDrain((yield* Stdio.Stdio).stdin)
}).pipe(Effect.scoped)

const Database = Layer.unwrap(
  Effect.map(Config.Redacted("DATABASE_URL"), (url) => Postgres.layer({ url, maxConnections: 4 }))
)

program.pipe(
  Effect.provide(
    Queues.layer.pipe(
      Layer.provideMerge(Watched.layer({ worker: name, record, way: Failpoint.make(failpoint, name, record) })),
      Layer.provide(Database),
      Layer.merge(NodeStdio.layer)
    )
  ),
  Effect.provideService(References.MinimumLogLevel, "None"),
  NodeRuntime.runMain
)
