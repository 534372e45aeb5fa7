import { layer } from "@effect/vitest"
import { deepStrictEqual, notDeepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import { migrations as outboxMigrations } from "@strata/outbox/OutboxMigrations"
import type { PreparedMessage } from "@strata/outbox/PreparedMessage"
import * as Publication from "@strata/outbox/Publication"
import { Postgres } from "@strata/postgres/Postgres"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"

const Store = EventStorePostgres.layer().pipe(
  Layer.provideMerge(PostgresTest.layer({ migrations: [outboxMigrations, migrations] }))
)

const News: Publication.Destination<string> = { kind: "topic", name: "news", encode: (text) => Result.succeed(text) }

const told = (...texts: ReadonlyArray<string>) => [Publication.make(News, texts.map((payload) => ({ payload })))]

const fact = (stream: string, n = 1): Fact.NewFact => ({
  stream: Fact.StreamId.make(stream),
  type: "Said",
  data: { n }
})

/** What was published, in order. */
const published = Effect.flatMap(Postgres, ({ sql }) =>
  Effect.map(
    sql<{ id: string; data: string; tenant: string; correlation: string; type: string }>`
      select
        m.id, m.data, coalesce(m.tenant, o.tenants[1]) as tenant, coalesce(m.correlation_id, m.id::text) as correlation,
        coalesce(m.type, o.types[1], o.destination) as type
      from outbox o cross join lateral unnest(o.ids, o.data, o.tenants, o.correlation_ids, o.types) with ordinality as m (
        id, data, tenant, correlation_id, type, place
      )
      order by o.id, m.place`,
    (rows) => rows
  ))

const texts = Effect.map(published, (rows) => rows.map(({ data }) => data))

const empty = Effect.flatMap(Postgres, ({ sql }) => sql`delete from outbox`)

layer(Store, { excludeTestServices: true })("an append", (it) => {
  it.effect("publishes what it carries, with its tenant and its correlation", () =>
    Effect.gen(function*() {
      yield* empty
      const store = yield* EventStore
      const { facts: [first] } = yield* store.append({ facts: [fact("a-1")], publications: told("one", "two") })
      yield* store.append({ facts: [fact("a-1"), fact("a-2")], publications: told("three") })
      deepStrictEqual(yield* texts, ["one", "two", "three"])
      const [one, two] = yield* published
      const message = { tenant: "default", correlation: first!.eventId, type: "news" }
      deepStrictEqual(one, { ...message, id: first!.eventId, data: "one" })
      deepStrictEqual(two, { ...message, id: two!.id, data: "two" })
      notDeepStrictEqual(two!.id, one!.id)
    }))

  it.effect("gives no message an id that somebody else may have given to a fact", () =>
    Effect.gen(function*() {
      yield* empty
      const store = yield* EventStore
      const eventId = Fact.EventId.make("00000000-0000-7000-8000-000000000002")
      const { facts: [, made] } = yield* store.append({
        facts: [{ ...fact("given-1"), eventId }, fact("given-1")],
        publications: told("one", "two")
      })
      const [one, two] = yield* published
      deepStrictEqual([one!.id, one!.correlation, two!.correlation], [made!.eventId, eventId, eventId])
      deepStrictEqual(new Set([eventId, one!.id, two!.id]).size, 3)
    }))

  it.effect("that is refused publishes nothing, also among others that are written with it", () =>
    Effect.gen(function*() {
      yield* empty
      const store = yield* EventStore
      const appends = Array.from({ length: 60 }, (_, n) =>
        Effect.result(store.append({
          facts: [fact(`many-${n % 2}`)],
          expect: n % 3 === 0 ? { "many-nobody": "streamExists" } : {},
          publications: told(`${n}`)
        })))
      const results = yield* Effect.all(appends, { concurrency: "unbounded" })
      const written = results.flatMap((result, n) => Result.isSuccess(result) ? [`${n}`] : [])
      deepStrictEqual(written, Array.from({ length: 60 }, (_, n) => n).filter((n) => n % 3 !== 0).map(String))
      deepStrictEqual((yield* texts).toSorted(), written.toSorted())
    }))

  it.effect("that was there before publishes nothing again", () =>
    Effect.gen(function*() {
      yield* empty
      const store = yield* EventStore
      const again = {
        facts: [{ ...fact("again-1"), eventId: Fact.EventId.make("00000000-0000-7000-8000-000000000001") }],
        publications: told("once")
      }
      const first = yield* store.append(again)
      const second = yield* store.append(again)
      deepStrictEqual([first.duplicate, second.duplicate], [false, true])
      deepStrictEqual(yield* texts, ["once"])
    }))

  it.effect("inside a transaction publishes when that commits, and nothing when it does not", () =>
    Effect.gen(function*() {
      yield* empty
      const store = yield* EventStore
      const { transact } = yield* Postgres
      const append = (text: string) =>
        store.appendInTransaction({ facts: [fact("inside-1")], publications: told(text) })
      yield* Effect.asVoid(transact(append("yes")))
      yield* Effect.exit(transact(Effect.andThen(append("no"), Effect.fail("no"))))
      deepStrictEqual(yield* texts, ["yes"])
    }))

  it.effect("is refused whole when its destination takes nothing, and nothing else is", () =>
    Effect.gen(function*() {
      yield* empty
      const store = yield* EventStore
      const { sql } = yield* Postgres
      yield* sql`insert into outbox_refusal values ('topic', 'news', 'no live group reads it')`
      const [refused, other] = yield* Effect.all([
        Effect.flip(store.append({ facts: [fact("refused-1")], publications: told("no") })),
        store.append({ facts: [fact("refused-2")] })
      ], { concurrency: "unbounded" })
      yield* sql`delete from outbox_refusal`
      strictEqual(refused.message, "Nothing is published to topic news: no live group reads it")
      strictEqual(refused.reason._tag === "InvalidAppend" && refused.reason.path, "publications")
      deepStrictEqual([other.duplicate, yield* store.streamVersion(Fact.StreamId.make("refused-1"))], [false, 0])
      deepStrictEqual(yield* texts, [])
    }))

  it.effect("names the field of a message that cannot be published", () =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const error = yield* Effect.flip(store.append({
        facts: [fact("invalid-1")],
        publications: [Publication.make(News, [{ payload: "x", key: "" }])]
      }))
      deepStrictEqual(error.reason._tag === "InvalidAppend" && error.reason.path, "publications.messages[0].key")
      strictEqual(
        error.message,
        "expected 1 to 512 characters, none of them NUL or half of a surrogate pair"
      )
    }))

  it.effect("in memory tells what it published", () =>
    Effect.gen(function*() {
      const seen: Array<PreparedMessage> = []
      const store = yield* EventStoreMemory.make({ published: (messages) => seen.push(...messages) })
      yield* store.append({ facts: [fact("a-1")], publications: told("one") })
      yield* Effect.exit(
        store.append({ facts: [fact("a-1")], expect: { "a-1": "noStream" }, publications: told("two") })
      )
      deepStrictEqual(seen.map(({ data, destination }) => [destination.name, data]), [["news", "\"one\""]])
    }).pipe(Effect.provide(SecureRandom.layerWebCrypto)))
})
