/** Which indexes answer each question that the store is asked, on a million facts. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { type Append, EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as FactChunks from "@strata/event-store/FactChunks"
import type { FactQuery, LogFilter } from "@strata/event-store/FactQuery"
import { Postgres } from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { SqlError } from "effect/sql/SqlError"
import { backgroundAfter } from "./backgroundAfter.ts"
import { Explain, facts, LargeStore, storeName } from "./largeStore.ts"

type Store = EventStore["Service"]

const Large = Layer.mergeAll(LargeStore, SecureRandom.layerWebCrypto).pipe(Layer.provide(NodeServices.layer))

const stream = Fact.streamId("order", "1234")
const eventId = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${String(n).padStart(12, "0")}`)
const position = (n: number) => Fact.Position.make(BigInt(n))
/** So many seconds after the first fact began to hold. */
const moment = (n: number) => Timestamp.fromMicros(BigInt(Date.UTC(2025, 0, 1)) * 1000n + BigInt(n) * 1_000_000n)
/** When the nth fact was recorded. */
const recorded = (n: number) => Timestamp.fromMicros(BigInt(Date.UTC(2026, 0, 1) + n) * 1000n)

const log = "fact_pkey"
const event = "fact_event_id"
const version = "fact_version"
const chain = "fact_chain"
const revisions = "fact_revisions"
const streams = "stream_id"
const streamNumber = "stream_pkey"
const chunks = "fact_chunk_pkey"
const labels = "fact_chunk_labels"
const counts = "fact_count_pkey"
const keys = "idempotency_key_pkey"
const keyAges = "idempotency_key_recorded_at"
const snapshots = "snapshot_pkey"

/** What is asked, the indexes that answer it, and how many rows may be looked at for it, 2,000 unless given. */
type Question = readonly [
  name: string,
  ask: (store: Store, turn: number) => Effect.Effect<unknown, EventStoreError | SqlError, Postgres>,
  by: ReadonlyArray<string>,
  rows?: number
]

const read = (query: FactQuery) => (store: Store) => store.read(query)
const count = (query: FactQuery) => (store: Store) => store.count(query)
const readLog = (filter: LogFilter | undefined, after: number) => (store: Store) =>
  store.readLog({ after: position(after), filter, limit: 100 })
const followLog = (filter: LogFilter) => (store: Store) =>
  store.readLog({ after: position(facts - 1000), upTo: position(facts), filter })
const append = (make: (turn: number) => Append) => (store: Store, turn: number) => store.append(make(turn))
const added = (turn: number, name: string): Fact.NewFact => ({
  stream: Fact.streamId("added", `${name} ${turn % 3}`),
  type: "Added",
  data: {}
})

const writes: ReadonlyArray<Question> = [
  ["append a fact", append((turn) => ({ facts: [added(turn, "one")] })), [event, version, streams]],
  [
    "append facts of several streams under a key",
    append((turn) => ({
      facts: [added(turn, "some"), added(turn + 1, "some"), { stream, type: "Added", data: {} }],
      idempotency: { key: `new ${turn}`, fingerprint: "f", answer: null }
    })),
    [event, keys, version, streams]
  ],
  [
    "append unless something else was recorded",
    append((turn) => ({
      facts: [added(turn, "condition")],
      condition: { after: position(facts - 100), noneOf: [{ types: ["thing.once"] }] }
    })),
    [event, log, version, streams, streamNumber]
  ],
  [
    "append what was appended before",
    append(() => ({ facts: [{ ...added(0, "again"), eventId: eventId(facts) }] })),
    [event, version, streams, streamNumber]
  ],
  [
    "correct a fact",
    (store, turn) =>
      store.revise({ _tag: "Correction", revises: eventId(500 + turn), data: { turn }, reason: "r", actor: "a" }),
    [chain, event, version, streamNumber]
  ],
  [
    "say something of a stream",
    (store, turn) => store.streams.setMetadata(stream, { turn }, { actor: "a", reason: "r" }),
    [event, version, streams]
  ],
  [
    "keep a snapshot",
    (store, turn) =>
      store.saveSnapshot({ stream, schemaVersion: 1, version: 2 + turn, position: position(turn), state: {} }),
    [snapshots]
  ],
  [
    "summarize the log",
    () => Effect.flatMap(Postgres, ({ sql }) => FactChunks.summarize(sql, 1)),
    [chunks]
  ]
]

const readsOfStreams: ReadonlyArray<Question> = [
  ["read a stream", (store) => store.readStream(stream), [version, streams]],
  ["read a stream backwards", (store) => store.readStream(stream, { direction: "backwards", limit: 5 }), [
    version,
    streams
  ]],
  ["read the version of a stream", (store) => store.streamVersion(stream), [version, streams]],
  ["ask what is believed in a stream", read({ stream }), [chain, revisions, version, streams]],
  [
    "ask what was known of a stream",
    read({ stream, knownAt: { position: position(600_000) } }),
    [chain, revisions, version, streams]
  ],
  [
    "ask what was known of a stream at a time",
    (store, turn) => store.read({ stream, knownAt: { time: recorded(600_000 + turn) } }),
    [chain, revisions, log, version, streams]
  ],
  [
    "ask what of a stream holds, by validity",
    read({ stream, validAt: moment(500_000), orderBy: "validity" }),
    [chain, revisions, version, streams]
  ],
  [
    "ask for some versions of a stream",
    read({ stream, versions: { from: 10, to: 20 }, types: ["thing.*.4"], direction: "backwards" }),
    [chain, revisions, version, streams]
  ],
  ["list streams", (store) => store.streams.list({ category: "visit" }), [version, streams]],
  ["look at a stream", (store) => store.streams.get(stream), [version, streams]],
  ["load a snapshot", (store) => store.loadSnapshot(Fact.streamId("order", "99"), 1), [snapshots]]
]

const readsOfTheLog: ReadonlyArray<Question> = [
  ["read the log", readLog(undefined, 400_000), [log, streamNumber]],
  ["read a category of the log", readLog({ category: "visit" }, 400_000), [log, chunks, labels, streamNumber], 20_000],
  ["read a rare type of the log", readLog({ types: ["thing.once"] }, 0), [log, chunks, labels, streamNumber]],
  ["follow a category of the log", followLog({ category: "visit" }), [log, streamNumber], 2100],
  ["read a stream of the log", readLog({ stream }, 400_000), [version, streams]],
  ["read a tenant's log", readLog({ tenant: "acme" }, 400_000), [log, chunks, labels, streamNumber], 10_000],
  ["get a fact", (store) => store.get(eventId(123_456)), [event, streamNumber]],
  ["ask for a fact's history", (store) => store.history(eventId(20_049)), [chain, event, log, streamNumber]],
  ["ask how far the log was", (store, turn) => store.positionAt({ time: recorded(123_456 + turn) }), [log]],
  ["ask what is believed", read({}), [chain, log, streamNumber]],
  ["ask what was believed last", read({ direction: "backwards" }), [chain, log, streamNumber]],
  [
    "ask what is believed in a category",
    read({ category: "visit" }),
    [chain, log, chunks, counts, labels, streamNumber],
    20_000
  ],
  ["ask what is believed in a small category", read({ category: "rare" }), [chain, chunks, counts, version, streams]],
  ["ask for a rare type", read({ types: ["thing.once"] }), [chain, log, chunks, labels, streamNumber]],
  [
    "ask for some types",
    read({ types: ["thing.found", "thing.once"] }),
    [chain, log, chunks, labels, streamNumber],
    60_000
  ],
  ["ask for a correlation", read({ correlationId: "correlation 777" }), [chain, log, chunks, labels, streamNumber]],
  [
    "ask for the correlation of a fact",
    read({ correlationId: eventId(654_321) }),
    [chain, event, log, chunks, labels, streamNumber]
  ],
  [
    "ask for what a fact caused",
    read({ causationId: "cause 150" }),
    [chain, log, chunks, labels, streamNumber],
    10_000
  ],
  ["ask for metadata", read({ metadata: { n: 1400 } }), [chain, log, chunks, labels, streamNumber]],
  ["ask what is valid", read({ validAt: moment(500_000) }), [chain, log, streamNumber], 20_000],
  ["ask what is valid before anything is", read({ validAt: moment(-30_000) }), [
    chain,
    log,
    chunks,
    labels,
    streamNumber
  ], 6000],
  [
    "ask what is valid, by validity",
    read({ validAt: moment(500_000), orderBy: "validity" }),
    [chain, log, chunks, labels, streamNumber],
    50_000
  ],
  [
    "ask what is valid for a while, from its end",
    read({
      validDuring: { from: moment(500_000), to: moment(500_060) },
      orderBy: "validity",
      direction: "backwards",
      types: ["thing.set.3"]
    }),
    [chain, log, chunks, labels, streamNumber],
    50_000
  ],
  ["count a small category", count({ category: "rare" }), [chain, chunks, counts, version, streams]],
  ["count a rare type", count({ types: ["thing.once"] }), [chain, log, chunks, labels]],
  ["count what is believed", count({}), [chain, log, chunks, labels], 60_000],
  [
    "count what is valid in a category",
    count({ category: "visit", validAt: moment(500_000) }),
    [chain, log, chunks, counts, labels, streamNumber],
    250_000
  ],
  ["count a stream", count({ stream }), [chain, revisions, version, streams]],
  [
    "read some streams up to a position",
    (store) => store.readStreams({ streams: [{ tenant: "default", stream }], upTo: position(600_000) }),
    [version, streams, streamNumber]
  ],
  ["list categories", (store) => store.streams.categories, [counts, log, chunks, streamNumber]],
  ["list types", (store) => store.streams.types, [counts, log, chunks, streamNumber]],
  ["ask for a key's answer", (store) => store.idempotencyRecord("key 77"), [keys]]
]

/** Often enough for PostgreSQL to think of a plan that does not hang on the parameters. */
const turns = 8

layer(Large, { excludeTestServices: true, timeout: 240_000 })("a store of a million facts", (it) => {
  const used = new Set<string>()

  it.effect("forgets old keys after it is opened", () =>
    Effect.gen(function*() {
      const explain = yield* Explain
      const opened = Effect.scoped(
        Effect.andThen(
          Effect.provide(
            EventStorePostgres.make({ name: storeName, summarize: false }),
            backgroundAfter(Duration.zero)
          ),
          Effect.sleep("500 millis")
        )
      )
      const [, { indexes, scans }] = yield* explain(opened)
      deepStrictEqual(scans, [])
      deepStrictEqual(indexes, [keys, keyAges].toSorted())
      used.add(keyAges)
    }))

  for (const [name, ask, by, rows = 2000] of [...readsOfTheLog, ...readsOfStreams, ...writes]) {
    it.effect(`is asked to ${name}`.replace("asked to ask", "asked"), () =>
      Effect.gen(function*() {
        const explain = yield* Explain
        const store = yield* EventStore
        for (let turn = 0; turn < turns; turn++) {
          const [, explanation] = yield* explain(ask(store, turn))
          deepStrictEqual(explanation.scans, [])
          assert.isAtMost(explanation.rows, rows)
          // The first turn may find out what is known from then on.
          if (turn > 0) deepStrictEqual(explanation.indexes, by.toSorted())
        }
        for (const index of by) used.add(index)
      }))
  }

  it.effect("says that a count is not exact for which it would look through the log", () =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const counted = (query: FactQuery) => Effect.map(store.count(query), ({ exact, value }) => [value, exact])
      // One fact in fifty, of which two in three go on to hold: a third of them is in the first 100,000.
      const [value, exact] = yield* counted({ category: "visit", validAt: moment(300_000) })
      deepStrictEqual([Number(value) > 1000 && Number(value) < 2000, exact], [true, false])
      deepStrictEqual(yield* counted({ types: ["thing.once"] }), [1, true])
      deepStrictEqual(yield* counted({ category: "nobody" }), [0, true])
    }))

  it.effect("has no index that nobody uses", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const indexes = yield* sql<{ name: string }>`
        select c.relname as name from pg_index i
        join pg_class c on c.oid = i.indexrelid
        join pg_class t on t.oid = i.indrelid
        where t.relnamespace = 'strata'::regnamespace and (
          t.relname in ('fact', 'stream', 'idempotency_key', 'snapshot', 'fact_chunk', 'fact_count')
          -- The others do not grow with the log: what their keys refuse is reason enough for those.
          or not i.indisunique
        )
        order by 1`
      deepStrictEqual(indexes.map(({ name }) => name).filter((name) => !used.has(name)), [])
    }))
})
