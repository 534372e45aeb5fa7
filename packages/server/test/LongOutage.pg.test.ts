import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Postgres from "@strata/postgres/Postgres"
import * as ShedLadder from "@strata/resilience/shedding/ShedLadder"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { admission, conversation, onDatabase, TestServer } from "./testServer.ts"

const path = "/api/v1/conversations"

/** Requests that are sent every so often, whether the last ones were answered or not: an outage does not thin them out. */
const pause = "100 millis"
const outage = Duration.seconds(30)
/** Calm again after the database is back. */
const calm = Duration.seconds(60)
/** Messages that may be on their way: a busy machine sheds some, which come a second later. */
const onTheirWay = 60

describe("a database that is stopped for half a minute under load", () => {
  it.live(
    "is found again by itself, and has every message that was acknowledged, once",
    () =>
      Effect.gen(function*() {
        const database = yield* PrivatePostgres.make()
        const shedding = { enabled: true, ladder: ShedLadder.standard, retryAfter: Duration.seconds(1), floor: 2 }
        const server = yield* Layer.build(
          onDatabase({ admission: { ...admission, requestTimeout: Duration.seconds(10), shedding } }).pipe(
            Layer.provideMerge(Postgres.layer({ url: database.url }))
          )
        )
        const { send } = Context.get(server, TestServer)
        yield* send("POST", path, { body: conversation("outage") })

        const acknowledged = new Set<string>()
        let sent = 0
        // A client sends a message again under its id until it is taken, each time after what it is told to wait.
        const deliver = (messageId: string) =>
          Effect.repeat(
            Effect.gen(function*() {
              const answer = yield* Effect.orElseSucceed(
                send("POST", `${path}/outage/messages`, {
                  body: { messageId, senderId: "ada", content: messageId },
                  headers: { "idempotency-key": messageId }
                }),
                () => undefined
              )
              const taken = answer !== undefined && answer.status < 300
              if (taken) acknowledged.add(messageId)
              else yield* Effect.sleep(Duration.seconds(Number(answer?.headers["retry-after"] ?? 1)))
              return taken
            }),
            { until: (taken) => taken }
          )
        const load = yield* Effect.repeat(
          Effect.suspend(() => Effect.forkScoped(deliver(`message-${sent++}`))),
          Schedule.spaced(pause)
        ).pipe(Effect.forkScoped)

        yield* Effect.repeat(Effect.sleep("20 millis"), { until: () => acknowledged.size >= 50 })
        yield* database.kill9
        const before = acknowledged.size
        yield* Effect.sleep(outage)
        assert.isAbove(sent - before, 100)
        assert.isBelow(acknowledged.size - before, 20)
        yield* database.start()
        // Five seconds during which nobody waits for longer than a client that is told to come again.
        let inRow = 0
        const [recovered] = yield* Effect.sleep("50 millis").pipe(
          Effect.repeat({
            until: () => {
              inRow = acknowledged.size >= sent - onTheirWay ? inRow + 1 : 0
              return inRow === 100
            }
          }),
          Effect.timeout(calm),
          Effect.timed
        )
        yield* Fiber.interrupt(load)
        yield* Effect.repeat(Effect.sleep("20 millis"), { until: () => acknowledged.size >= sent }).pipe(
          Effect.timeout("20 seconds")
        )
        yield* Effect.logInfo(`${sent} messages, calm ${Duration.format(recovered)} after the database was back`)

        const { sql } = Context.get(server, Postgres.Postgres)
        const stored = yield* sql<{ id: string; n: number }>`
          select data->>'messageId' as id, count(*)::int as n from fact where type = 'MessageSent' group by 1`
        assert.deepStrictEqual(stored.filter(({ n }) => n > 1), [])
        assert.deepStrictEqual(new Set(stored.map(({ id }) => id)), acknowledged)
        assert.strictEqual((yield* send("GET", "/health/ready")).status, 200)
      }).pipe(Effect.provide([NodeServices.layer, NodeHttpClient.layerUndici]), Effect.scoped),
    180_000
  )
})
