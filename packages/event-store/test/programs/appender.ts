/**
 * A process that appends to a store with several writers at once, and prints what was acknowledged.
 *
 * Arguments: store, writers, appends of each writer, seed. Prints `ready`, waits for a line, prints `ack <event ids>` for
 * each append that was acknowledged, `failed <reason>` for one that failed but for a version conflict, and `done`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as Postgres from "@strata/postgres/Postgres"
import * as Array from "effect/Array"
import * as Config from "effect/Config"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"

const [name = "default", writers = "1", appends = "1", seed = "1"] = process.argv.slice(2)

const print = (line: string) => Effect.sync(() => void process.stdout.write(`${line}\n`))

/** One to three facts on one or two of eight streams, half of the time at the version the writer last saw. */
const appendOnce = Effect.fnUntraced(function*(seen: Map<string, number>) {
  const store = yield* EventStore
  const random = yield* SecureRandom.SecureRandom
  const streams = yield* Effect.forEach(
    Array.range(1, yield* Random.nextIntBetween(1, 3)),
    () => Effect.map(Random.nextIntBetween(1, 9), (n) => Fact.streamId("counter", `${n}`))
  )
  const facts = yield* Effect.forEach(
    Array.range(1, yield* Random.nextIntBetween(1, 4)),
    (n) =>
      Effect.map(random.uuidV7(), (id): Fact.NewFact => ({
        stream: streams[n % streams.length]!,
        type: "Counted",
        data: { n },
        eventId: Fact.EventId.make(id)
      }))
  )
  const exact = yield* Random.nextBoolean
  const expect = exact ? Object.fromEntries(streams.map((stream) => [stream, seen.get(stream) ?? 0])) : {}
  yield* store.append({ facts, expect }).pipe(
    Effect.matchEffect({
      onSuccess: (appended) =>
        Effect.suspend(() => {
          for (const fact of appended.facts) seen.set(fact.stream, fact.version)
          return print(`ack ${appended.facts.map((fact) => fact.eventId).join(" ")}`)
        }),
      onFailure: ({ reason }) =>
        Effect.suspend(() => {
          if (reason._tag !== "VersionConflict") return print(`failed ${reason._tag}`)
          seen.set(reason.stream, reason.actual)
          return Effect.void
        })
    })
  )
})

const program = Effect.gen(function*() {
  yield* EventStore
  yield* print("ready")
  const stdio = yield* Stdio.Stdio
  yield* Stream.runHead(stdio.stdin)
  yield* Effect.forEach(
    Array.range(1, Number(writers)),
    (writer) =>
      Effect.suspend(() => {
        const seen = new Map<string, number>()
        return Effect.repeat(appendOnce(seen), { times: Number(appends) - 1 })
      }).pipe(Random.withSeed(`${seed}/${writer}`)),
    { concurrency: "unbounded", discard: true }
  )
  yield* print("done")
})

const Database = Layer.unwrap(
  Effect.map(Config.Redacted("DATABASE_URL"), (url) => Postgres.layer({ url, maxConnections: 5 }))
)

program.pipe(
  Effect.provide(
    EventStorePostgres.layer({ name }).pipe(
      Layer.provide(Database),
      Layer.merge(SecureRandom.layerWebCrypto),
      Layer.merge(NodeStdio.layer)
    )
  ),
  NodeRuntime.runMain
)
