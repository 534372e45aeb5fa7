import { assert, it } from "@effect/vitest"
import { EventStore, EventStoreError, StoreUnavailable } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as Fact from "@strata/event-store/Fact"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import * as EventStoreFeed from "@strata/server/EventStoreFeed"
import { ServerConfig } from "@strata/server/ServerConfig"
import { Shutdown } from "@strata/server/Shutdown"
import type * as Cause from "effect/Cause"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { HttpServerResponse } from "effect/http/HttpServerResponse"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { settings } from "./testServer.ts"

const viewer = { subject: "vera", tenant: "default", roles: ["viewer"] } as const

/** A store in memory whose log is counted and can be taken away, and feeds of it. */
const setUp = Effect.gen(function*() {
  const store = yield* EventStoreMemory.make()
  const reads = yield* Ref.make(0)
  const away = yield* Ref.make(false)
  const readLog: EventStore["Service"]["readLog"] = Effect.fnUntraced(function*(options) {
    yield* Ref.update(reads, (n) => n + 1)
    return (yield* Ref.get(away))
      ? yield* new EventStoreError({ reason: new StoreUnavailable({ operation: "readLog", cause: "away" }) })
      : yield* store.readLog(options)
  })
  const ask = yield* Effect.provideService(EventStoreFeed.make, EventStore, { ...store, readLog })
  const feed = (query: EventStoreFeed.Asked["query"]) =>
    ask({ query, headers: {} }).pipe(Effect.map(textsOf), Effect.provideService(CurrentPrincipal, viewer))
  const append = (count: number, type: string, data = "x") =>
    store.append({ facts: Array.from({ length: count }, () => ({ stream: Fact.streamId("a", "1"), type, data })) })
  return { append, away, feed, reads }
}).pipe(Effect.provideService(ServerConfig, settings), Effect.provide(SecureRandom.layerWebCrypto))

const textsOf = ({ body }: HttpServerResponse): Stream.Stream<string> =>
  body._tag === "Stream" ? Stream.decodeText(Stream.orDie(body.stream)) : Stream.die("not a stream")

const signOfLife = (position: number) => `: heartbeat\nid: ${position}\n\n`

it.effect("a page of the log is read when the one before has been taken", () =>
  Effect.gen(function*() {
    const { append, feed, reads } = yield* setUp
    yield* append(500, "counted", "x".repeat(10_000))
    const texts = yield* Stream.runCollect(Stream.take(yield* feed({ after: Fact.beginning }), 4))
    assert.strictEqual(texts.length, 4)
    assert.isTrue(texts.every((text) => text.length < 80_000))
    assert.strictEqual(yield* Ref.get(reads), 1)
  }).pipe(Effect.provide(Shutdown.layer)))

it.effect("a quiet feed gives signs of life that move past what the filter leaves out", () =>
  Effect.gen(function*() {
    const { append, feed } = yield* setUp
    const texts = yield* Queue.unbounded<string, Cause.Done>()
    yield* Effect.forkScoped(Stream.runIntoQueue(yield* feed({ eventType: ["wanted"] }), texts))
    assert.strictEqual(yield* Queue.take(texts), signOfLife(0))
    yield* append(3, "other")
    yield* TestClock.adjust("14 seconds")
    assert.strictEqual(yield* Queue.size(texts), 0)
    yield* TestClock.adjust("2 seconds")
    assert.strictEqual(yield* Queue.take(texts), signOfLife(3))
    yield* TestClock.adjust("13 seconds")
    yield* append(1, "wanted")
    assert.match(yield* Queue.take(texts), /^id: 4\ndata: \{.*"eventType":"wanted".*\}\n\n$/)
    // The interval begins anew with each event.
    yield* TestClock.adjust("14 seconds")
    assert.strictEqual(yield* Queue.size(texts), 0)
    yield* TestClock.adjust("2 seconds")
    assert.deepStrictEqual(yield* Queue.takeAll(texts), [signOfLife(4)])
  }).pipe(Effect.provide(Shutdown.layer)))

it.effect("a database that is away makes a feed quiet, not wrong", () =>
  Effect.gen(function*() {
    const { append, away, feed, reads } = yield* setUp
    const texts = yield* Queue.unbounded<string, Cause.Done>()
    yield* Effect.forkScoped(Stream.runIntoQueue(yield* feed({ after: Fact.beginning }), texts))
    assert.strictEqual(yield* Queue.take(texts), signOfLife(0))
    yield* Ref.set(away, true)
    yield* append(1, "missed")
    yield* TestClock.adjust("16 seconds")
    assert.strictEqual(yield* Queue.take(texts), signOfLife(0))
    assert.isAtMost(yield* Ref.get(reads), 20)
    yield* Ref.set(away, false)
    yield* TestClock.adjust("2 seconds")
    assert.match(yield* Queue.take(texts), /^id: 1\n/)
  }).pipe(Effect.provide(Shutdown.layer)))

it.effect("a feed ends when the server begins to stop", () =>
  Effect.gen(function*() {
    const { feed } = yield* setUp
    const { begin } = yield* Shutdown
    const whole = yield* Effect.forkScoped(Stream.runCollect(yield* feed({})), { startImmediately: true })
    yield* begin
    assert.deepStrictEqual(yield* Fiber.join(whole), [signOfLife(0)])
    assert.deepStrictEqual(yield* Stream.runCollect(yield* feed({})), [signOfLife(0)])
  }).pipe(Effect.provide(Shutdown.layer)))
