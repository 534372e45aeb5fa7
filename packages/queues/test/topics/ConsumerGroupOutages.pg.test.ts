import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import * as Outbox from "@strata/outbox/Outbox"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as Queues from "@strata/queues/Queues"
import * as Topics from "@strata/queues/topics/Topics"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as TcpProxy from "@strata/testing/TcpProxy"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import { eventually, migrations, topicOf } from "./fixture.ts"
import { assertOnceInOrder, createTable, handledBy, startMember } from "./groupProcesses.ts"

const topic = topicOf("outages")
const keys = 12

/** Publishes numbers to the keys in turn, one transaction each, until told; gives those that were acknowledged. */
const publishing = Effect.fnUntraced(function*(isOver: () => boolean) {
  const outbox = yield* Outbox.Outbox
  const acknowledged: Array<number> = []
  for (let n = 0; !isOver(); n++) {
    const published = yield* Effect.exit(outbox.publish(topic, [{ payload: { n }, key: `${n % keys}` }]))
    if (Exit.isSuccess(published)) acknowledged.push(n)
    else yield* Effect.sleep("20 millis")
  }
  return acknowledged
})

layer(NodeServices.layer, { excludeTestServices: true })("relay and members", (it) => {
  it.effect(
    "lose, double and reorder nothing when their server is killed, its backends are, and connections are cut",
    () =>
      Effect.gen(function*() {
        const server = yield* PrivatePostgres.make({ settings: { max_connections: "60" } })
        const proxy = yield* TcpProxy.make({ host: "127.0.0.1", port: server.port })
        yield* Effect.gen(function*() {
          const { sql } = yield* Postgres.Postgres
          yield* Migrations.run(migrations)
          yield* createTable
          const members = yield* Effect.forEach(["one", "other"], (label) =>
            startMember(proxy.through(server.url), { group: "outages", topic: topic.name, label, sessionMillis: 3000 }))
          for (const member of members) {
            yield* member.waitFor((line) =>
              line === "ready"
            )
          }

          let isOver = false
          const publisher = yield* Effect.forkChild(publishing(() => isOver))
          for (let round = 0; round < 2; round++) {
            yield* Effect.sleep("700 millis")
            yield* proxy.cut
            yield* Effect.sleep("100 millis")
            yield* proxy.pass
            // Some statement of the relay, or the commit of a batch: done, and nobody is told.
            yield* Effect.timeoutOption(
              proxy.cutWhen({ from: "server", matches: TcpProxy.contains("COMMIT"), deliver: false }),
              "5 seconds"
            )
            yield* Effect.sleep("700 millis")
            yield* server.kill9
            yield* Effect.sleep("300 millis")
            yield* server.start()
          }
          yield* Effect.sleep("700 millis")
          const [busy] = yield* sql<{ pid: number }>`
            select pid from pg_stat_activity
            where application_name is not null and pid <> pg_backend_pid() and backend_type = 'client backend' limit 1`
          yield* server.kill9Backend(busy!.pid)
          yield* Effect.sleep("1 second")
          isOver = true
          const acknowledged = yield* Fiber.join(publisher)

          const topics = yield* Topics.Topics
          yield* eventually(
            Effect.orElseSucceed(
              Effect.gen(function*() {
                const [waiting] = yield* sql<{ n: number }>`select count(*)::int as n from outbox`
                const { partitions } = yield* topics.group({ name: "outages" })
                return waiting!.n === 0 && partitions.every(({ lag }) => lag === 0n)
              }),
              () => false
            ),
            (isDrained) => isDrained
          )
          const { last } = yield* topics.find(topic)
          const rows = yield* handledBy("outages")
          assertOnceInOrder(rows, Number(last))
          const handled = rows.map(({ n }) => n)
          // What was not acknowledged may have been published, once.
          assert.strictEqual(new Set(handled).size, handled.length)
          assert.isAbove(acknowledged.length, 100)
          const all = new Set(handled)
          assert.deepStrictEqual(acknowledged.filter((n) => !all.has(n)), [])
        }).pipe(
          Effect.provide(
            Layer.mergeAll(Outbox.layer, Topics.layer, Queues.layer).pipe(
              Layer.provideMerge(Postgres.layer({ url: server.url, maxConnections: 6 }))
            )
          )
        )
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")),
    120_000
  )
})
