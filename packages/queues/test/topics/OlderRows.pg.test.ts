import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { it } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as Outbox from "@strata/outbox/Outbox"
import * as Migrations from "@strata/postgres/Migrations"
import { Postgres } from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Queues from "@strata/queues/Queues"
import * as ConsumerGroup from "@strata/queues/topics/ConsumerGroup"
import * as OutboxRelay from "@strata/queues/topics/OutboxRelay"
import type { TopicMessage } from "@strata/queues/topics/Topic"
import * as Topics from "@strata/queues/topics/Topics"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import { fileURLToPath, pathToFileURL } from "node:url"
import { eventually, migrations, topicOf } from "./fixture.ts"

/** The migrations of a package from before rows kept an array of each field. */
const before = Effect.fnUntraced(function*(all: Migrations.Migrations) {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "strata-migrations-" })
  const from = fileURLToPath(all.directory)
  for (const file of (yield* fs.readDirectory(from)).sort()) {
    if (file.endsWith("_fields.sql")) break
    yield* fs.copyFile(`${from}${file}`, `${directory}/${file}`)
  }
  return { ...all, directory: pathToFileURL(`${directory}/`) }
})

/** Those of one statement were published at the same moment, but for microseconds. */
const message = (n: number, rest = "null, null, null, null", day = n) =>
  `row('00000000-0000-7000-8000-00000000000${n}', hashtext('k${n}') & 2147483647, 'k${n}', 'Told', 'acme', ${rest}, '{"n":${n}}',
    '2026-01-0${day} 12:00Z', null)::outbox_message`

const topic = topicOf("older", { partitions: 1 })

it.layer(PostgresTest.layer({ options: { maxConnections: 20 } }), { excludeTestServices: true })(
  "rows of before",
  (it) => {
    it.effect("are relayed and read as they were, those of topics and those of the outbox", () =>
      Effect.gen(function*() {
        const { rows } = yield* Postgres
        yield* Effect.provide(
          Effect.flatMap(Effect.forEach(migrations, before), Migrations.run),
          NodeFileSystem.layer
        )
        yield* rows("insert into topic (name, partitions) values ('older', 1)", [])
        yield* rows(
          `insert into topic_chunk select t.id, 1, 2, '2026-01-03', 400, array[
          ${message(1, `'c1', 'f1', null, '{"h": 1}'`)}, ${message(2)}
        ] from topic t`,
          []
        )
        for (
          const [kind, messages] of [["topic", `${message(3)}, ${message(4, `null, 'f4', null, '{"h": 4}'`, 3)}`], [
            "queue",
            message(5)
          ]]
        ) {
          yield* rows(
            `insert into outbox (slot, kind, destination, count, messages)
          select 0, '${kind}', 'older', cardinality(m), m from (select array[${messages}] as m) m`,
            []
          )
        }
        yield* Effect.provide(Migrations.run(migrations), NodeFileSystem.layer)
        const found: Array<TopicMessage<{ readonly n: number }>> = []
        yield* Effect.provide(
          Effect.gen(function*() {
            yield* ConsumerGroup.run({
              name: "older",
              topics: [topic],
              startFrom: "beginning",
              handler: (messages) => Effect.sync(() => void found.push(...messages))
            })
            yield* eventually(Effect.sync(() => found.length), (length) => length >= 4)
            yield* eventually(rows("select count(*)::int from message", []), ([row]) => row![0] === 1)
          }).pipe(Effect.scoped),
          Layer.provideMerge(OutboxRelay.layer, Layer.mergeAll(Outbox.layer, Topics.layer, Queues.layer))
        )
        const told = (n: number, said: object = {}) => ({
          id: `00000000-0000-7000-8000-00000000000${n}`,
          key: `k${n}`,
          type: "Told",
          tenant: "acme",
          correlationId: `00000000-0000-7000-8000-00000000000${n}`,
          causationId: undefined,
          headers: {},
          payload: { n },
          position: BigInt(n),
          publishedAt: Timestamp.fromMillis(Date.UTC(2026, 0, n, 12)),
          ...said
        })
        deepStrictEqual(
          found.map((
            { causationId, correlationId, headers, id, key, payload, position, publishedAt, tenant, type }
          ) => ({ id, key, type, tenant, correlationId, causationId, headers, payload, position, publishedAt })),
          [
            told(1, { correlationId: "c1", causationId: "f1", headers: { h: 1 } }),
            told(2),
            told(3),
            told(4, { causationId: "f4", headers: { h: 4 }, publishedAt: told(3).publishedAt })
          ]
        )
        deepStrictEqual(
          yield* rows("select key, type, tenant, data, priority::int from message", []),
          [["k5", "Told", "acme", { n: 5 }, 5]]
        )
      }).pipe(Effect.scoped))
  }
)
