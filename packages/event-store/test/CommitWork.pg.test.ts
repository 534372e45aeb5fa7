import { layer } from "@effect/vitest"
import { assertInstanceOf, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { ProjectionRefused } from "@strata/event-store/CommitWork"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Arr from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"

const Database = Layer.merge(PostgresTest.layer({ migrations: [migrations] }), SecureRandom.layerWebCrypto)

let stores = 0
const open = Effect.suspend(() => EventStorePostgres.make({ name: `store ${++stores}`, summarize: false }))

const stream = Fact.streamId("account", "a")
const isThirteen = Schema.is(Schema.Struct({ n: Schema.Literal(13) }))
const fact = (n: number): Fact.NewFact => ({ stream, type: "Counted", data: { n } })

layer(Database, { excludeTestServices: true })("work before the commit of what is written", (it) => {
  it.effect("is told of each append, correction and retraction, in a transaction or not, until its scope closes", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { transact } = yield* Postgres
      const told = yield* Ref.make<ReadonlyArray<readonly [bigint, bigint]>>([])
      yield* Effect.scoped(Effect.gen(function*() {
        yield* store.beforeCommit(({ after, upTo }) => Ref.update(told, (all) => [...all, [after, upTo] as const]))
        const { facts: [first] } = yield* store.append({ facts: [fact(1), fact(2)] })
        const revision = { revises: first!.eventId, reason: "typing error", actor: "ada" }
        yield* store.revise({ _tag: "Correction", ...revision, data: { n: 3 } })
        yield* transact(Effect.asVoid(Effect.andThen(
          store.appendInTransaction({ facts: [fact(4)] }),
          store.reviseInTransaction({ _tag: "Retraction", ...revision })
        )))
        // What is refused, or was there before, is not written.
        yield* Effect.flip(store.append({ facts: [fact(5)], expect: { [stream]: "noStream" } }))
        const again = { eventId: first!.eventId, ...fact(1) }
        deepStrictEqual((yield* store.append({ facts: [again] })).duplicate, true)
      }))
      yield* store.append({ facts: [fact(6)] })
      deepStrictEqual(yield* Ref.get(told), [[0n, 2n], [2n, 3n], [3n, 4n], [4n, 5n]])
    }).pipe(Effect.scoped))

  it.effect("sees the facts, and holds everybody else up", () =>
    Effect.gen(function*() {
      const store = yield* open
      const inside = yield* Ref.make(0)
      const most = yield* Ref.make(0)
      const seen = yield* Ref.make<ReadonlyArray<bigint>>([])
      yield* store.beforeCommit(({ after, upTo }) =>
        Effect.gen(function*() {
          const now = yield* Ref.updateAndGet(inside, (n) => n + 1)
          yield* Ref.update(most, (n) => Math.max(n, now))
          const facts = yield* Effect.orDie(store.readLog({ after, upTo }))
          yield* Ref.update(seen, (all) => [...all, ...facts.map(({ position }) => position)])
          yield* Ref.update(inside, (n) => n - 1)
        })
      )
      yield* Effect.forEach(Arr.range(1, 100), (n) => store.append({ facts: [fact(n)] }), { concurrency: "unbounded" })
      strictEqual(yield* Ref.get(most), 1)
      deepStrictEqual(yield* Ref.get(seen), Arr.range(1, 100).map(BigInt))
    }).pipe(Effect.scoped))

  it.effect("that refuses a fact leaves nothing of its append, and what is written with it is written", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.beforeCommit((recorded) =>
        Effect.orDie(store.readLog(recorded)).pipe(
          Effect.map((facts) => facts.find(({ data }) => isThirteen(data))),
          Effect.flatMap((bad) =>
            bad === undefined ? Effect.void : Effect.fail(
              new ProjectionRefused({
                projection: "lucky",
                eventId: bad.eventId,
                stream: bad.stream,
                detail: "not this one"
              })
            )
          )
        )
      )
      const written = yield* Effect.forEach(
        Arr.range(1, 40),
        (n) => Effect.result(store.append({ facts: [fact(n)] })),
        { concurrency: "unbounded" }
      )
      deepStrictEqual(written.flatMap(({ _tag }, index) => _tag === "Failure" ? [index + 1] : []), [13])
      const { facts: [last] } = yield* store.append({ facts: [fact(0)] })
      const refused = yield* Effect.flip(store.revise({
        _tag: "Correction",
        revises: last!.eventId,
        reason: "unlucky",
        actor: "ada",
        data: { n: 13 }
      }))
      assertInstanceOf(refused.reason, ProjectionRefused)
      strictEqual(yield* store.head, 40n)
    }).pipe(Effect.scoped))
})
