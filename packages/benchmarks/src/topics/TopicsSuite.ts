/**
 * Topics beside plain SQL, PgQ-style SQL and Emmett's consumer: consuming with an effect, publishing with an append, and how soon a message
 * is delivered.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import type * as Scope from "effect/Scope"
import * as Apart from "../Apart.ts"
import * as Callers from "../Callers.ts"
import * as EmmettSystem from "../event-store/EmmettSystem.ts"
import * as Lanes from "../event-store/Lanes.ts"
import * as Server from "../event-store/Server.ts"
import * as Workload from "../event-store/Workload.ts"
import * as Loading from "../queues/Loading.ts"
import * as PgqStyle from "../queues/PgqStyle.ts"
import { BenchmarkError, failure, type Goal, type Lane, type RowName, type Suite, type Work } from "../Suite.ts"
import * as PlainLog from "./PlainLog.ts"
import * as StrataTopics from "./StrataTopics.ts"

const sizes = {
  full: { messages: 200_000, emmett: 20_000, backlog: 10_000_000 },
  quick: { messages: 50_000, emmett: 5000, backlog: 500_000 }
}

/** Messages a second of `latency`, and the first ones, which find everything cold. */
const rate = 100
const cold = 100

/** Messages that are moved by one run of `backlog`. */
const relayed = 50_000

/** So long the server writes what the lane before has left. */
const settled = Effect.sleep("1 second")

/** Groups of `fan-out`. */
const fanOut = 16

const strata = (work: string): RowName => ({ work, system: "Strata" })
const within = (ours: RowName, millis: number): Goal => ({ ours, against: `${millis} ms`, theirs: millis, goal: 1 })

const goals: ReadonlyArray<Goal> = [
  {
    ours: strata("consume"),
    against: "plain SQL, offset",
    theirs: [{ work: "consume", system: "plain SQL, offset" }],
    goal: 0.5
  },
  {
    ours: strata("publish@256"),
    against: "nothing published",
    theirs: [{ work: "publish@256", system: "Strata, nothing published" }],
    goal: 0.8
  },
  within(strata("latency p50"), 5),
  within(strata("latency p99"), 25),
  within(strata("latency beside an open transaction p50"), 5),
  within(strata("latency beside an open transaction p99"), 25),
  {
    ours: strata(`publish time p50, ${fanOut} groups`),
    against: "one group",
    theirs: [strata("publish time p50, 1 group")],
    goal: 0.9
  },
  {
    ours: strata("relay, large backlog"),
    against: "small backlog",
    theirs: [strata("relay, small backlog, written out")],
    goal: 0.85
  }
]

/**
 * `topics`.
 *
 * @category suites
 * @since 0.1.0
 */
export const suite: Suite = {
  name: "topics",
  open: Effect.fnUntraced(function*({ quick }) {
    const size = quick ? sizes.quick : sizes.full
    const server = yield* Server.start
    return {
      versions: { node: process.versions.node },
      settings: server.settings,
      serverPid: server.pid,
      works: yield* works(server, size),
      goals,
      notes: [
        `consume: ${size.messages} messages of a thousand keys, 500 by a transaction, read from the beginning. Strata: one member, eight ` +
        "partitions, two batches at a time; what the handler writes and the positions commit together. Plain SQL: one reader, one offset.",
        "Each consumes all of it once before it is timed: code that had nothing to do for half a minute is cold, that of a consumer is not.",
        "PgQ-style: one consumer, told by batches. Emmett: its consumer and a handler that does nothing.",
        "publish: appends of one fact by 256 callers; each carries a message, which a relay moves to a topic meanwhile.",
        `latency: ${rate} messages a second, each published by itself; from before the publishing to the handler.`,
        "beside an open transaction: one has published before and does not end meanwhile.",
        `backlog: ${relayed} messages moved by the relay, each published by itself: all there are, or of ${size.backlog}. Written out: ` +
        "after a checkpoint, as most of a large backlog is. The first change of a page after one goes into the log with all of the page.",
        `fan-out: the time that publishing takes at that rate, while as many groups get each message in another process.`
      ]
    }
  })
}

const works = Effect.fnUntraced(function*(server: Server.Server, size: typeof sizes.full) {
  const services = yield* Effect.context<ChildProcessSpawner>()
  const consume: Work = {
    name: "consume",
    rounds: 11,
    lanes: Effect.gen(function*() {
      const topics = yield* Effect.flatMap(server.createDatabase("strata"), StrataTopics.make)
      const plain = yield* Effect.flatMap(server.createDatabase("plain"), PlainLog.make)
      const pgq = yield* Effect.flatMap(server.createDatabase("pgq"), PgqStyle.make)
      const emmett = yield* Effect.flatMap(server.createDatabase("emmett"), EmmettSystem.make)
      yield* topics.consumer.fill(size.messages)
      yield* plain.withEffect.fill(size.messages)
      for (let n = 0; n * 100 < size.emmett; n++) {
        yield* emmett.append(
          Workload.streamName("filled", n),
          0,
          Array.from({ length: 100 }, (_, k) => Workload.data(k))
        )
      }
      return [
        ...[topics.consumer, plain.offset, plain.withEffect].map((consumer) =>
          timed(consumer.name, "consume", size.messages, consumer.consume(size.messages), {
            before: consumer.consume(size.messages),
            after: consumer.check(size.messages)
          })
        ),
        drained(pgq, size.messages),
        timed("Emmett", "consume", size.emmett, emmett.catchUp(size.emmett), { before: emmett.catchUp(size.emmett) })
      ]
    })
  }

  const publish: Work = {
    name: "publish",
    rounds: 11,
    lanes: Effect.map(
      Effect.flatMap(server.createDatabase("strata_publish"), StrataTopics.make),
      ({ silent, telling }) =>
        [telling, silent].map((system) =>
          Lanes.append(system, { work: "publish@256", callers: 256, facts: 1, before: server.checkpoint })
        )
    )
  }

  const latency: Work = {
    name: "latency",
    lanes: Effect.map(
      Effect.flatMap(server.createDatabase("strata_latency"), StrataTopics.make),
      (topics) => [
        delivery(topics, "latency", Effect.void),
        delivery(topics, "latency beside an open transaction", topics.held)
      ]
    )
  }

  const groups: Work = {
    name: "fan-out",
    rounds: 11,
    lanes: Effect.gen(function*() {
      const url = yield* server.createDatabase("strata_groups")
      const topics = yield* StrataTopics.make(url)
      return [1, fanOut].map((count) =>
        publishing(
          topics,
          count,
          Effect.mapError(Effect.provide(Apart.start(listen, url, String(count)), services), notApart)
        )
      )
    })
  }
  const backlog: Work = {
    name: "backlog",
    rounds: 11,
    lanes: Effect.gen(function*() {
      const open = (name: string) =>
        Effect.flatMap(server.createDatabase(name), (url) => StrataTopics.make(url, { relays: false }))
      const small = yield* open("strata_small_backlog")
      const large = yield* open("strata_large_backlog")
      yield* large.pile(size.backlog)
      yield* server.checkpoint
      const run = (topics: StrataTopics.StrataTopics) => topics.relay(relayed)
      return [
        timed("Strata", "relay, small backlog", relayed, run(small), {
          before: Effect.andThen(small.pile(relayed), settled)
        }),
        timed("Strata", "relay, small backlog, written out", relayed, run(small), {
          before: Effect.all([small.pile(relayed), server.checkpoint, settled], { discard: true })
        }),
        timed("Strata", "relay, large backlog", relayed, run(large), { before: settled })
      ]
    })
  }
  return [consume, publish, latency, groups, backlog]
})

const timed = (
  system: string,
  work: string,
  count: number,
  run: Effect.Effect<void, BenchmarkError>,
  { after = Effect.void, before = Effect.void }: {
    readonly before?: Effect.Effect<unknown, BenchmarkError> | undefined
    readonly after?: Effect.Effect<unknown, BenchmarkError> | undefined
  } = {}
): Lane => ({
  system,
  run: Effect.fnUntraced(function*(_, watch) {
    yield* before
    const now = yield* Loading.stopwatch
    const begun = now()
    yield* watch(run)
    const value = count / (now() - begun) * 1000
    yield* after
    return [{ work, unit: "ops/s", value }]
  })
})

const drained = (pgq: Effect.Success<ReturnType<typeof PgqStyle.make>>, count: number): Lane => ({
  system: pgq.name,
  run: Effect.fnUntraced(function*(_, watch) {
    const filled = Effect.andThen(pgq.empty, Loading.load(pgq, { from: 0, count }))
    yield* Effect.andThen(filled, Loading.drain(pgq, count))
    yield* filled
    const millis = yield* watch(Loading.drain(pgq, count))
    return [{ work: "consume", unit: "ops/s", value: count / millis * 1000 }]
  })
})

/** Publishes at the rate, and gives how long each took, in milliseconds. */
const publishAll = Effect.fnUntraced(function*(topics: StrataTopics.StrataTopics, count: number) {
  const now = yield* Loading.stopwatch
  const begun = now()
  const took: Array<number> = []
  for (let n = 0; n < count; n++) {
    const early = n / rate * 1000 - (now() - begun)
    if (early > 0) yield* Effect.sleep(early)
    const at = now()
    yield* topics.publish({ n, at })
    took.push(now() - at)
  }
  return took
})

const percentiles = (work: string, millis: ReadonlyArray<number>) => {
  const latencies = Float64Array.from(millis.slice(cold)).sort()
  const timing = { calls: latencies.length, seconds: 1, latencies }
  return [50, 99].map((share) => ({
    work: `${work} p${share}`,
    unit: "ms" as const,
    value: Callers.percentile(timing, share / 100)
  }))
}

/** Runs of `delivery` so far. */
let run = 0

const delivery = (
  topics: StrataTopics.StrataTopics,
  work: string,
  beside: Effect.Effect<void, never, Scope.Scope>
): Lane => ({
  system: "Strata",
  run: (seconds, watch) =>
    Effect.scoped(Effect.gen(function*() {
      yield* beside
      const count = cold + Math.round(rate * seconds * 5)
      const now = yield* Loading.stopwatch
      const latencies: Array<number> = []
      // A new one for every run, which begins at the end: the topic has what others published meanwhile.
      yield* topics.listen(`${work} ${++run}`, ({ at, n }) => {
        // That of an open transaction, which has ended.
        if (n >= 0) latencies.push(now() - at)
      })
      yield* watch(publishAll(topics, count))
      yield* Loading.patiently(
        Effect.repeat(Effect.sync(() => latencies.length), { until: (length) => length >= count, times: 100_000 }),
        () => `The group got ${latencies.length} of ${count} messages`
      )
      if (latencies.length !== count) {
        return yield* new BenchmarkError({ message: `The group got ${latencies.length} of ${count} messages` })
      }
      return percentiles(work, latencies)
    }))
})

const listen = new URL("./listen.ts", import.meta.url)
const notApart = failure("Groups in a process of their own")

const publishing = (
  topics: StrataTopics.StrataTopics,
  groups: number,
  started: Effect.Effect<Apart.Apart, BenchmarkError, Scope.Scope>
): Lane => ({
  system: "Strata",
  run: (seconds, watch) =>
    Effect.scoped(Effect.gen(function*() {
      const listening = yield* started
      yield* listening.until("listening")
      const took = yield* watch(publishAll(topics, cold + Math.round(rate * seconds * 2)))
      yield* listening.ended
      return percentiles("publish time", took).map((sample) => ({
        ...sample,
        work: `${sample.work}, ${groups} ${groups === 1 ? "group" : "groups"}`
      }))
    })).pipe(Effect.mapError(notApart))
})
