import { assert, it } from "@effect/vitest"
import { ConversationId, UserId } from "@strata/conversations/domain/Conversation"
import * as Conversations from "@strata/conversations/write/Conversations"
import * as CommitWork from "@strata/event-store/CommitWork"
import * as EventIds from "@strata/event-store/EventIds"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as GroupAppend from "@strata/event-store/GroupAppend"
import * as PreparedAppend from "@strata/event-store/PreparedAppend"
import * as Sealing from "@strata/event-store/Sealing"
import { Postgres } from "@strata/postgres/Postgres"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as SqlError from "effect/sql/SqlError"
import * as TestClock from "effect/testing/TestClock"

/** Conversations over an append that sends a statement up to three times, on a database that refuses each of them. */
const setUp = Effect.gen(function*() {
  const sent = { statements: 0 }
  const busy = new SqlError.SqlError({
    reason: new SqlError.UnknownError({
      cause: Object.assign(new Error("busy"), { code: "40001" }),
      operation: "query"
    })
  })
  const refusing = Layer.mock(Postgres, {
    schema: "strata",
    role: undefined,
    holdsConnection: Effect.succeed(false),
    mayNotify: () => Effect.succeed(false),
    rows: () =>
      Effect.suspend(() => {
        sent.statements++
        return Effect.fail(busy)
      })
  })
  const random = yield* SecureRandom.SecureRandom
  const postgres = yield* Effect.provide(Postgres, refusing)
  const group = yield* GroupAppend.make(postgres, {
    storeId: 1,
    retry: Schedule.recurs(1),
    work: CommitWork.make(postgres),
    signature: "",
    committed: () => Effect.void
  })
  const memory = yield* EventStoreMemory.make()
  const store = EventStore.of({
    ...memory,
    append: (append) =>
      PreparedAppend.prepare(append, random, Sealing.none.seal).pipe(
        Effect.flatMap(group.append),
        Effect.andThen(Effect.die("a statement was not refused"))
      )
  })
  const context = yield* Layer.build(Conversations.layer().pipe(Layer.provide(Layer.succeed(EventStore, store))))
  const conversations = Context.get(context, Conversations.Conversations)
  const start = conversations.start({
    conversationId: ConversationId.make("c1"),
    participants: [
      { userId: UserId.make("ada"), role: "CUSTOMER" },
      { userId: UserId.make("bob"), role: "SERVICE_PROVIDER" }
    ]
  })
  return { sent, start }
})

const three = RetryPolicy.retry({
  policy: RetryPolicy.make({ attempts: 3, base: "10 millis", total: "1 second", jitter: "none" })
})

const finish = Effect.fnUntraced(function*<A, E>(effect: Effect.Effect<A, E>) {
  const fiber = yield* Effect.forkChild(Effect.flip(effect))
  yield* TestClock.adjust("1 minute")
  return yield* Fiber.join(fiber)
})

it.effect("three layers of three tries send a database that refuses three statements", () =>
  Effect.gen(function*() {
    const { sent, start } = yield* setUp
    yield* finish(start)
    assert.strictEqual(sent.statements, 3)
    sent.statements = 0
    const error = yield* finish(start.pipe(three, three))
    assert.deepStrictEqual([error._tag, sent.statements], ["EventStoreError", 3])
  }).pipe(Effect.scoped, Effect.provide(EventIds.layerRandom)))
