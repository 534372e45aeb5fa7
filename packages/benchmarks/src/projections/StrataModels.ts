/**
 * The read models of conversations, built by Strata's projections.
 *
 * @since 0.1.0
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Analytics from "@strata/conversations/analytics/Analytics"
import { MessageAnalytics } from "@strata/conversations/analytics/MessageAnalytics"
import { ResponseTimes } from "@strata/conversations/analytics/ResponseTimes"
import { ConversationEvents, MessageSent } from "@strata/conversations/domain/ConversationEvent"
import { ConversationList } from "@strata/conversations/read/ConversationList"
import { Messages } from "@strata/conversations/read/Messages"
import { UnreadCounts } from "@strata/conversations/read/UnreadCounts"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { streamId } from "@strata/event-store/Fact"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Loading from "../queues/Loading.ts"
import { BenchmarkError, failure, type Watch } from "../Suite.ts"
import * as Archive from "./Archive.ts"

/**
 * The four that are built side by side with others.
 *
 * @category constants
 * @since 0.1.0
 */
export const four = [ConversationList, Messages, UnreadCounts, ResponseTimes]

/**
 * Corrections that are not timed.
 *
 * @category constants
 * @since 0.1.0
 */
export const cold = 50

/** How a run shares the work. */
interface Sharing {
  readonly partitions?: number
  readonly concurrency?: number
}

/**
 * A store in a database, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const tables = Migrations.layer([EventStoreMigrations.migrations, ProjectionsMigrations.migrations]).pipe(
    Layer.provide(NodeServices.layer)
  )
  const context = yield* Layer.build(Analytics.layer.pipe(
    Layer.provideMerge(EventStorePostgres.layer()),
    Layer.provide(tables),
    Layer.provideMerge(Postgres.layer({ url, maxConnections: 24, statementTimeout: 0 }))
  ))
  const store = Context.get(context, EventStore)
  const { sql } = Context.get(context, Postgres.Postgres)

  /** Writes so many conversations. */
  const fill = (conversations: number) =>
    Effect.forEach(
      Arr.chunksOf(Arr.range(0, conversations - 1), 25),
      (some) => store.append({ facts: some.flatMap(Archive.facts) }),
      { concurrency: 8, discard: true }
    ).pipe(Effect.andThen(sql`vacuum (analyze)`))

  const running = (options: Sharing & { readonly all?: boolean }) =>
    Effect.map(
      Layer.build(Projections.layer(options.all === true ? [...four, MessageAnalytics] : four, options)),
      (built) => Context.get(built, Projections.Projections)
    )

  /** All that a process runs which is alone, so that each projection has one partition. */
  const oneProcess = { partitions: 1, concurrency: 8, all: true }

  /** Builds the four anew, and gives how long it took in milliseconds. */
  const rebuild = (conversations: number, sharing: Sharing, watch: Watch) =>
    Effect.gen(function*() {
      const { catchUp, operate, status } = yield* running(sharing)
      yield* catchUp({ timeout: "1 hour" })
      const now = yield* Loading.stopwatch
      const begun = now()
      yield* watch(Effect.gen(function*() {
        yield* Effect.forEach(four, ({ name }) => operate.rebuild(name, { partitions: sharing.partitions }))
        yield* Effect.repeat(Effect.delay(status, "20 millis"), {
          until: (all) => all.every(({ generations }) => generations.at(-1)?.state === "live")
        })
      }))
      const millis = now() - begun
      yield* Effect.forEach(yield* status, ({ generations, name }) =>
        Effect.forEach(
          generations.filter(({ state }) => state === "old"),
          ({ number }) => operate.drop(name, number)
        ))
      const [row] = yield* sql<{ messages: number; conversations: number }>`
        select (select count(*)::integer from conversation_message) as messages,
          (select count(*)::integer from conversation where message_count = ${Archive.messagesEach}) as conversations`
      if (row!.messages !== conversations * Archive.messagesEach || row!.conversations !== conversations) {
        return yield* new BenchmarkError({ message: `Strata built ${row!.messages} messages of ${row!.conversations}` })
      }
      return millis
    }).pipe(Effect.scoped, Effect.provide(context), Effect.mapError(failure("Rebuilding")))

  /**
   * Appends so many facts a second, and gives for each append how long readers waited for it, in milliseconds. The first two seconds
   * warm up.
   */
  const lag = (rate: number, seconds: number, watch: Watch) =>
    Effect.gen(function*() {
      const { catchUp, waitFor } = yield* running({ partitions: 1 })
      yield* catchUp({ timeout: "1 hour" })
      const now = yield* Loading.stopwatch
      const head = yield* store.head
      const begun = now()
      const waited: Array<number> = []
      const warm = Math.round(rate * 2 / Archive.factsEach)
      const count = warm + Math.round(rate * seconds / Archive.factsEach)
      yield* watch(Effect.forEach(Arr.range(1, count), (number) =>
        Effect.gen(function*() {
          const due = number * Archive.factsEach / rate * 1000 - (now() - begun)
          if (due > 0) yield* Effect.sleep(due)
          const { position } = yield* store.append({ facts: Archive.facts(Number(head) + number) })
          const at = now()
          yield* waitFor({ position, timeout: "1 minute" })
          if (number > warm) waited.push(now() - at)
        }), { concurrency: 64, discard: true }))
      return waited
    }).pipe(Effect.scoped, Effect.provide(context), Effect.mapError(failure("Live")))

  /**
   * Corrects messages one by one, and gives how long each took until readers saw it, in milliseconds. The first ones warm up, as they do
   * for facts.
   */
  const correct = (conversations: number, count: number, watch: Watch) =>
    Effect.gen(function*() {
      const { catchUp, waitFor } = yield* running(oneProcess)
      yield* catchUp({ timeout: "1 hour" })
      const now = yield* Loading.stopwatch
      const took: Array<number> = []
      yield* watch(Effect.forEach(Arr.range(1, cold + count), (number) =>
        Effect.gen(function*() {
          const stream = streamId("conversation", `c${(number * 7919) % conversations}`)
          const fact = (yield* store.readStream(stream, { limit: 8 })).at(-1)!
          const event = Result.getOrThrow(ConversationEvents.decode(fact))
          if (event._tag !== "MessageSent") return
          const sentAt = Timestamp.fromMicros(event.sentAt + 60_000_000n)
          // After a silence, so that no projection lingers.
          yield* Effect.sleep("100 millis")
          const at = now()
          const { position } = yield* store.revise(
            ConversationEvents.encodeCorrection(MessageSent.make({ ...event, sentAt }), {
              revises: fact.eventId,
              reason: "the clock was wrong",
              actor: "bench"
            })
          )
          yield* waitFor({ position, timeout: "1 minute" })
          if (number > cold) took.push(now() - at)
        }), { discard: true }))
      return took
    }).pipe(Effect.scoped, Effect.provide(context), Effect.mapError(failure("Correcting")))

  /** Asks each figure of periods of all lengths, and gives how long each took in milliseconds. */
  const ask = (conversations: number, watch: Watch) =>
    Effect.gen(function*() {
      const { catchUp } = yield* running(oneProcess)
      yield* catchUp({ timeout: "1 hour" })
      yield* sql`vacuum (analyze)`
      const analytics = yield* Analytics.Analytics
      const first = Archive.events(0)[1]
      const last = Archive.events(conversations - 1)[1]
      if (first?._tag !== "MessageSent" || last?._tag !== "MessageSent") return { period: [], whole: [] }
      const days = Math.max(1, Number((last.sentAt - first.sentAt) / 86_400_000_000n))
      const now = yield* Loading.stopwatch
      const timed = <A, E, R>(into: Array<number>, query: Effect.Effect<A, E, R>) =>
        Effect.suspend(() => {
          const at = now()
          return Effect.tap(query, () => Effect.sync(() => into.push(now() - at)))
        })
      const [period, whole]: [Array<number>, Array<number>] = [[], []]
      yield* watch(Effect.forEach(Arr.range(0, 99), (number) =>
        Effect.gen(function*() {
          const from = Timestamp.fromMicros(first.sentAt + BigInt((number * 37) % days) * 86_400_000_000n)
          const to = Timestamp.fromMicros(from + BigInt([1, 7, 30, 90, 365][number % 5]!) * 86_400_000_000n)
          const helper = Archive.events(number)[0]
          const provider = helper?._tag === "ConversationStarted" ? helper.participants[1]?.userId : undefined
          yield* timed(period, analytics.activity({ from, to }))
          yield* timed(period, analytics.responseTimes({ from, to }))
          yield* timed(period, analytics.responseTimes({ from, to, provider }))
          yield* timed(period, analytics.volume({ from, to }))
          yield* timed(period, analytics.day({ day: from }))
          if (number % 10 > 0) return
          yield* timed(whole, analytics.activity({}))
          yield* timed(whole, analytics.responseTimes({}))
          yield* timed(whole, analytics.volume({}))
        }), { discard: true }))
      return { period, whole }
    }).pipe(Effect.scoped, Effect.provide(context), Effect.mapError(failure("Asking")))

  return {
    fill: (conversations: number) => Effect.mapError(fill(conversations), failure("Filling")),
    rebuild,
    lag,
    correct,
    ask
  }
}, Effect.mapError(failure("Opening Strata")))
