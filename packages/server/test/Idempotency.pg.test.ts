import { assert, layer } from "@effect/vitest"
import { EventStore } from "@strata/event-store/EventStore"
import { streamId } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import {
  type Answer,
  conversation,
  keys,
  layerServer,
  onDatabase,
  someoneWaits,
  soon,
  TestServer
} from "./testServer.ts"

const c = "/api/v1/conversations"
const message = { senderId: "ada", content: "hello" }
const withKey = (key: string) => ({ headers: { "idempotency-key": key } })
const shown = ({ headers, status, text }: Answer) => ({ status, text, position: headers["strata-position"] })

layer(layerServer(), { excludeTestServices: true })("idempotency keys", (it) => {
  it.effect("the same key and body gets the first answer, and nothing happens again", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const store = yield* EventStore
      yield* send("POST", c, { body: conversation("one") })
      const first = yield* send("POST", `${c}/one/messages`, { ...withKey("sequential"), body: message })
      assert.strictEqual(first.status, 201)
      const head = yield* store.head
      const second = yield* send("POST", `${c}/one/messages`, { ...withKey("sequential"), body: message })
      assert.deepStrictEqual(shown(second), shown(first))
      assert.strictEqual(yield* store.head, head)
    }))

  it.effect("the key covers every kind of write", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      yield* send("POST", c, { body: conversation("kinds") })
      yield* send("POST", `${c}/kinds/messages`, { body: message })
      const writes = [
        ["start", c, conversation("kinds 2")],
        ["addParticipant", `${c}/kinds/participants`, { userId: "eve", role: "ADMIN" }],
        ["markRead", `${c}/kinds/read`, { userId: "bob" }],
        ["archive", `${c}/kinds/archive`, undefined]
      ] as const
      for (const [name, path, body] of writes) {
        const first = yield* send("POST", path, { ...withKey(`kind ${name}`), body })
        assert.strictEqual(first.status, 201, first.text)
        // Without the record it would be a duplicate, answered with 200.
        assert.deepStrictEqual(shown(yield* send("POST", path, { ...withKey(`kind ${name}`), body })), shown(first))
      }
    }))

  it.effect("another body, path or caller under a used key is 422", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      yield* send("POST", c, { body: conversation("two") })
      yield* send("POST", `${c}/two/messages`, { ...withKey("used once"), body: message })
      const others = [
        yield* send("POST", `${c}/two/messages`, { ...withKey("used once"), body: { ...message, content: "other" } }),
        yield* send("POST", `${c}/one/messages`, { ...withKey("used once"), body: message }),
        yield* send("POST", `${c}/two/messages`, { ...withKey("used once"), body: message, key: keys.operator })
      ]
      assert.deepStrictEqual(others.map(({ json, status }) => [status, json.rule]), [
        [422, "IdempotencyKeyReused"],
        [422, "IdempotencyKeyReused"],
        [422, "IdempotencyKeyReused"]
      ])
    }))

  it.effect("tenants do not share keys", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const mine = yield* send("POST", c, { ...withKey("everybody's"), body: conversation("mine") })
      const theirs = yield* send("POST", c, {
        ...withKey("everybody's"),
        body: conversation("theirs"),
        key: keys.other
      })
      assert.deepStrictEqual([mine.status, theirs.status], [201, 201])
      assert.strictEqual(theirs.json.conversationId, "theirs")
    }))

  it.effect("requests at the same time under one key happen once and are answered alike", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const store = yield* EventStore
      for (const round of [1, 2, 3]) {
        const before = yield* store.head
        const answers = yield* Effect.all(
          Array.from({ length: 12 }, () =>
            send("POST", c, {
              ...withKey(`at once ${round}`),
              body: { participants: [{ userId: "ada", role: "CUSTOMER" }] }
            })),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(new Set(answers.map((answer) => `${answer.status} ${answer.text}`)).size, 1)
        assert.strictEqual(answers[0]!.status, 201)
        assert.strictEqual((yield* store.head) - before, 1n)
      }
    }))

  it.effect("an answer that never arrived is given by another server on the same database", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const { sql, transact } = yield* Postgres
      const store = yield* EventStore
      yield* send("POST", c, { body: conversation("three") })
      // While the log is locked the command waits; its client leaves; then it is carried out to its end.
      yield* transact(Effect.gen(function*() {
        // The application's role may not.
        yield* sql`set local role none`
        yield* sql`lock table fact in exclusive mode`
        const client = yield* Effect.forkChild(
          send("POST", `${c}/three/messages`, { ...withKey("never arrived"), body: message }),
          { startImmediately: true }
        )
        yield* someoneWaits
        yield* Fiber.interrupt(client)
      }))
      yield* Effect.repeat(store.streamVersion(streamOf("three")), {
        until: (version) => version === 2,
        schedule: soon
      })
      const other = yield* Layer.build(Layer.fresh(onDatabase()))
      const again = yield* Context.get(other, TestServer).send("POST", `${c}/three/messages`, {
        ...withKey("never arrived"),
        body: message
      })
      assert.strictEqual(again.status, 201)
      assert.isFalse(again.json.duplicate)
      assert.strictEqual(yield* store.streamVersion(streamOf("three")), 2)
    }))
})

const streamOf = (id: string) => streamId("conversation", id)
