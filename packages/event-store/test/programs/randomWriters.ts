/**
 * A process with several writers that ask a store for this and that at the same time.
 *
 * Arguments: store, seed, number of the first writer, writers, attempts of each. Prints `ready`, waits for a line, prints
 * `ask <tenant> <JSON>` before each attempt, `told <JSON>` after it and `saw <JSON>` after a look at the store, and `done`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Postgres from "@strata/postgres/Postgres"
import * as Array from "effect/Array"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Attempt from "../Attempt.ts"
import * as Look from "../Look.ts"
import * as RandomWriter from "../RandomWriter.ts"

const [name = "default", seed = "1", first = "1", writers = "1", attempts = "1"] = process.argv.slice(2)

const print = (line: string) => Effect.sync(() => void process.stdout.write(`${line}\n`))
const askedLine = Schema.encodeSync(Attempt.AskedLine)
const attemptLine = Schema.encodeSync(Attempt.AttemptLine)
const lookLine = Schema.encodeSync(Look.LookLine)

const write = (writer: number) =>
  Effect.suspend(() => {
    const next = RandomWriter.make(writer)
    const tenant = RandomWriter.tenantOf(writer)
    return Effect.gen(function*() {
      const asked = yield* next
      yield* print(`ask ${tenant} ${askedLine(asked)}`)
      yield* print(`told ${attemptLine(yield* Attempt.attempt(asked))}`)
      yield* print(`saw ${lookLine(yield* Look.look(RandomWriter.streams))}`)
    }).pipe(Effect.repeat({ times: Number(attempts) - 1 }), Effect.provideService(CurrentTenant, tenant))
  }).pipe(Random.withSeed(`${seed}/${writer}`))

const program = Effect.gen(function*() {
  yield* EventStore
  yield* print("ready")
  const stdio = yield* Stdio.Stdio
  yield* Stream.runHead(stdio.stdin)
  yield* Effect.forEach(
    Array.makeBy(Number(writers), (n) => Number(first) + n),
    write,
    { concurrency: "unbounded", discard: true }
  )
  yield* print("done")
})

const Database = Layer.unwrap(Effect.map(Config.Redacted("DATABASE_URL"), (url) => Postgres.layer({ url })))

program.pipe(
  Effect.provide(
    EventStorePostgres.layer({ name }).pipe(Layer.provideMerge(Database), Layer.merge(NodeStdio.layer))
  ),
  NodeRuntime.runMain
)
