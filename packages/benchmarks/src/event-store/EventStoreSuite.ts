/**
 * The event store beside Emmett, message-db and plain SQL: appends, reads, subscriptions, and how they bear growth.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { fileURLToPath } from "node:url"
import * as Callers from "../Callers.ts"
import { type BenchmarkError, failure, type Lane, type Suite, type Work } from "../Suite.ts"
import * as Appender from "./Appender.ts"
import * as EmmettSystem from "./EmmettSystem.ts"
import { emmettCallers, goals } from "./Goals.ts"
import * as Lanes from "./Lanes.ts"
import * as MessageDbSystem from "./MessageDbSystem.ts"
import * as PlainSystem from "./PlainSystem.ts"
import * as Server from "./Server.ts"
import * as StrataFill from "./StrataFill.ts"
import * as StrataSystem from "./StrataSystem.ts"
import * as Workload from "./Workload.ts"

/** How much is stored. */
const sizes = {
  full: { small: 10_000, large: 5_000_000, catchUp: 1_000_000, emmettCatchUp: 50_000 },
  quick: { small: 10_000, large: 500_000, catchUp: 100_000, emmettCatchUp: 10_000 }
}

type Sizes = (typeof sizes)["full"]

/** What takes the time of Strata's rows, by profile on two cores (`node --cpu-prof`, `perf`, clocks inside the functions). */
const bounds = [
  "Bound of append-1@1: the round trip of one statement, 400 to 450 µs: 105 append_fact in the server and 25 its protocol, 100 " +
  "to 150 the flush, 60 to 90 our process, the rest cores that wake each other, three times an append. Where a flush takes 200 to " +
  "270, all of it takes twice as long: caches are cold after a silence.",
  "Bound of append-1@256: processor, 0.7 of a core here and 0.8 in the server, and the log's lock, which is held until a batch is " +
  "on the disk. Of the server's part append_facts is 40 %, half of it the insert, a quarter looking streams and versions up.",
  "Bound of hot@256 and of growth: that of append-1@256, by the same statement: 0.7 of a core here and 0.7 to 0.8 in the server.",
  "Bound of append-100@32: the server, some 12 µs a fact: three indexes, the check of two JSON texts, the WAL.",
  "Bound of read and catch-up: our process, 0.8 to 0.9 of a core: JSON.parse a quarter of it, the driver's other columns 15 %, " +
  "sending and waking a fifth, the event's schema 5 %. The log looks each fact's stream up as well, in the server.",
  "Bound of known-at: as of read. 100 facts take 0.18 ms more than the same stream without the time axis, by the cores in this table: 0.11 of " +
  "it in the server, which looks for newer revisions, and the rest here, for the moment and the page."
]

/**
 * `event-store`.
 *
 * @category suites
 * @since 0.1.0
 */
export const suite: Suite = {
  name: "event-store",
  open: Effect.fnUntraced(function*({ quick }) {
    const size = quick ? sizes.quick : sizes.full
    const server = yield* Server.start
    const open = yield* openSystems(server)
    return {
      versions: yield* versions,
      settings: server.settings,
      serverPid: server.pid,
      works: yield* works(server, open, size),
      goals,
      notes: [
        "A name ends with the number of callers; operations are facts; one caller appends or reads at a time.",
        "Appends name the version they expect, but hot ones. Everything written is counted and its order checked.",
        "append-1: each system appends in a process of its own, two seconds to warm up and then timed, on a database that is new: empty " +
        "but for what the warm-up wrote. In one process, the slowest appends of each would tell of the garbage of all.",
        "Emmett retries a hot append that lost against another one; its number of connections is 32.",
        "message-db: the functions of its package; an append of 100 is one statement of 100 calls.",
        `plain SQL, batched: one statement for 256 appends, with stream rows and version check, by one connection.`,
        `Catching up: ${size.catchUp} facts of a store of ${size.large}; Emmett ${size.emmettCatchUp} of as many, since ` +
        "it slows down with the size of the store.",
        ...bounds
      ]
    }
  })
}

const openSystems = Effect.fnUntraced(function*(server: Server.Server) {
  return {
    strata: yield* Effect.flatMap(server.createDatabase("strata"), StrataSystem.make),
    emmett: yield* Effect.flatMap(server.createDatabase("emmett"), EmmettSystem.make),
    messageDb: yield* Effect.flatMap(server.createDatabase("message_db"), MessageDbSystem.make),
    plain: yield* Effect.flatMap(server.createDatabase("plain"), PlainSystem.make)
  }
})

type Systems = Effect.Success<ReturnType<typeof openSystems>>

const works = Effect.fnUntraced(function*(server: Server.Server, systems: Systems, size: Sizes) {
  const { emmett, messageDb, plain, strata } = systems
  const before = server.checkpoint
  const spawner = yield* ChildProcessSpawner
  // Made when the first work asks for it, and kept for the others.
  const scope = yield* Effect.scope
  const large = yield* Effect.cached(
    Effect.gen(function*() {
      const url = yield* server.createDatabase("strata_large")
      const store = yield* StrataSystem.make(url)
      yield* StrataFill.fill(store.sql, size.large)
      yield* server.checkpoint
      return { ...store, url }
    }).pipe(Effect.provideService(Scope.Scope, scope))
  )

  const apart = yield* Appender.make(server)
  // One caller waits for a disk and for cores to wake each other, which takes now a third less and now a third more: more rounds.
  const append1Alone: Work = {
    name: "append-1-alone",
    rounds: 31,
    warmsUp: true,
    lanes: Effect.succeed(
      (["Strata", "Emmett", "message-db", "plain SQL, single inserts"] as const).map((system) =>
        apart({ system, work: "append-1@1", callers: 1, latency: false })
      )
    )
  }

  const append1: Work = {
    name: "append-1",
    warmsUp: true,
    lanes: Effect.sync(() => {
      const lane = (system: Appender.Order["system"], callers: number, latency = callers === 256) =>
        apart({ system, work: `append-1@${callers}`, callers, latency })
      return [
        ...[32, 256].flatMap((callers) => [lane("Strata", callers), lane("message-db", callers)]),
        ...emmettCallers.filter((callers) => callers > 1).map((callers) => lane("Emmett", callers)),
        lane("plain SQL, single inserts", 32),
        // What takes its time there is a batch, not an append.
        lane("plain SQL, batched", 256, false)
      ]
    })
  }

  const append100: Work = {
    name: "append-100",
    lanes: Effect.succeed(
      [1, 32].flatMap((callers) =>
        [strata, emmett, messageDb, plain].map((system) =>
          Lanes.append(system, { work: `append-100@${callers}`, callers, facts: 100, before })
        )
      )
    )
  }

  const hot: Work = {
    name: "hot",
    lanes: Effect.succeed(
      [1, 32, 256].flatMap((callers) =>
        [strata, emmett, messageDb].map((system) => Lanes.hot(system, { work: `hot@${callers}`, callers }))
      )
    )
  }

  const readers = [strata, emmett, messageDb, plain]
  const prepared = yield* Effect.cached(Effect.forEach(readers, Lanes.prepareReads, { discard: true }))
  const readBy = (callers: number) =>
    Effect.as(prepared, readers.map((reader) => Lanes.read(reader, { work: `read@${callers}`, callers })))
  const readAlone: Work = { name: "read-alone", rounds: 11, lanes: readBy(1) }
  const read: Work = { name: "read", rounds: 11, lanes: readBy(32) }

  const catchUp: Work = {
    name: "catch-up",
    lanes: Effect.gen(function*() {
      const store = yield* large
      const peer = yield* Effect.flatMap(server.createDatabase("emmett_catch_up"), EmmettSystem.make)
      // One after the other: its consumer misses messages that were appended at the same time.
      for (let n = 0; n * 100 < size.emmettCatchUp; n++) {
        yield* peer.append(Workload.streamName("filled", n), 0, Array.from({ length: 100 }, (_, k) => Workload.data(k)))
      }
      const until = BigInt(size.catchUp)
      const work = "catch-up"
      return [
        Lanes.catchUp("Strata", { work, facts: size.catchUp, run: store.catchUp(until) }),
        Lanes.catchUp("plain SQL", { work, facts: size.catchUp, run: PlainSystem.catchUp(store.sql, until) }),
        Lanes.catchUp("Emmett", { work, facts: size.emmettCatchUp, run: peer.catchUp(size.emmettCatchUp) })
      ]
    })
  }

  const memory: Work = {
    name: "memory",
    rounds: 1,
    lanes: Effect.map(large, ({ url }) => [heldMemory(spawner, url, size.large)])
  }

  const growth: Work = {
    name: "growth",
    rounds: 11,
    lanes: Effect.gen(function*() {
      const options = { callers: 256, facts: 1, before }
      let stores = 0
      // A new one for every round, since each would end with ten times what it began with.
      const small: Lane = {
        system: "Strata",
        run: (seconds, watch) =>
          Effect.scoped(Effect.gen(function*() {
            const store = yield* Effect.flatMap(server.createDatabase(`strata_small_${++stores}`), StrataSystem.make)
            yield* StrataFill.fill(store.sql, size.small)
            return yield* Lanes.append(store, { ...options, work: "growth, small store" }).run(seconds, watch)
          }))
      }
      return [small, Lanes.append(yield* large, { ...options, work: "growth, large store" })]
    })
  }

  const knownAt: Work = {
    name: "known-at",
    rounds: 11,
    lanes: Effect.gen(function*() {
      const small = yield* Effect.flatMap(server.createDatabase("strata_known_at"), StrataSystem.make)
      yield* StrataFill.fill(small.sql, size.small)
      return [...(yield* knownAtLanes(small, "small store")), ...(yield* knownAtLanes(yield* large, "large store"))]
    })
  }

  return [append1Alone, append1, append100, hot, readAlone, read, catchUp, memory, growth, knownAt]
})

/** Streams of 100 facts, every tenth of them corrected: read as they are stored, and as they were known at a time. */
const knownAtLanes = Effect.fnUntraced(function*(store: StrataSystem.StrataSystem, where: string) {
  const length = 100
  const streams = Array.from({ length: 20 }, (_, n) => Workload.streamName("corrected", n))
  let known: Timestamp.Timestamp | undefined
  for (const stream of streams) {
    yield* store.append(stream, 0, Array.from({ length }, (_, n) => Workload.data(n)))
    known = yield* store.correct(stream)
  }
  const time = known!
  const lane = (
    work: string,
    facts: number,
    read: (stream: string, facts: number) => Effect.Effect<void, BenchmarkError>
  ): Lane => ({
    system: store.name,
    run: Effect.fnUntraced(function*(seconds, watch) {
      const call = (_: number, turn: number) => read(streams[turn % streams.length]!, facts)
      const timing = yield* watch(Callers.run({ callers: 1, seconds, call }))
      return [{ work: `${work}, ${where}`, unit: "ops/s", value: timing.calls * facts / timing.seconds }]
    })
  })
  return [
    lane("known-at", length, (stream, facts) => store.readKnownAt(stream, time, facts)),
    lane("known-at, without the time axis", length + length / 10, store.readStream)
  ]
})

/** What a process holds that does nothing but read the whole log: the mean of the second tenth, and of the last one. */
const heldMemory = (
  spawner: ChildProcessSpawner["Service"],
  url: Redacted.Redacted,
  facts: number
): Lane => ({
  system: "Strata",
  run: Effect.fnUntraced(function*(_, watch) {
    const program = fileURLToPath(new URL("./catchUpMemory.ts", import.meta.url))
    const child = ChildProcess.make(process.execPath, [
      "--expose-gc",
      "--conditions=strata:source",
      program,
      String(facts)
    ], {
      env: { STRATA_BENCH_URL: url },
      extendEnv: true,
      stderr: "inherit"
    })
    const samples = yield* watch(spawner.lines(child)).pipe(
      Effect.map((lines) => lines.map(Number)),
      Effect.mapError(failure("Reading the log in another process"))
    )
    const tenth = Math.floor(samples.length / 10)
    const mean = (part: ReadonlyArray<number>) => part.reduce((sum, value) => sum + value, 0) / part.length
    return [
      { work: "memory, beginning of catch-up", unit: "bytes", value: mean(samples.slice(tenth, 2 * tenth)) },
      { work: "memory, end of catch-up", unit: "bytes", value: mean(samples.slice(-tenth)) }
    ]
  })
})

const Manifest = Schema.fromJsonString(Schema.Struct({ dependencies: Schema.Record(Schema.String, Schema.String) }))

/** The package's dependencies are exact, so they are the versions. */
const versions = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(import.meta.dirname, "..", "..", "package.json")
  const { dependencies } = yield* Schema.decodeEffect(Manifest)(yield* fs.readFileString(file))
  return { node: process.versions.node, ...dependencies }
}).pipe(Effect.mapError(failure("Reading the versions")))
