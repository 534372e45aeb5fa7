import { layer } from "@effect/vitest"
import { assertInstanceOf, deepStrictEqual } from "@effect/vitest/utils"
import { type Appended, EventStoreError, StoreUnavailable } from "@strata/event-store/EventStore"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import type { Revised } from "@strata/event-store/Revision"
import { Postgres } from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import type { NotCommitted } from "@strata/postgres/TransactionError"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Array from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as SqlClient from "effect/sql/SqlClient"
import * as Stream from "effect/Stream"
import { bitemporalContract } from "./bitemporalContract.ts"
import { boundaryContract } from "./boundaryContract.ts"
import { eventStoreContract } from "./eventStoreContract.ts"
import { questionsContract } from "./questionsContract.ts"
import { refusalsContract } from "./refusalsContract.ts"
import { repetitionContract } from "./repetitionContract.ts"
import { reportsContract } from "./reportsContract.ts"
import { streamsContract } from "./streamsContract.ts"

const Database = Layer.merge(PostgresTest.layer({ migrations: [migrations] }), SecureRandom.layerWebCrypto)

type Outcome = Effect.Effect<Appended | Revised, NotCommitted>

let stores = 0
const openNamed = (name: string) => EventStorePostgres.make({ name })
const open = Effect.suspend(() => openNamed(`store ${++stores}`))

const a = Fact.streamId("account", "a")
const fact = (n: number, stream = a): Fact.NewFact => ({ stream, type: "Counted", data: { n } })

layer(Database, { excludeTestServices: true })("EventStorePostgres", (it) => {
  eventStoreContract(it, open)
  bitemporalContract(it, open)
  streamsContract(it, open)
  boundaryContract(it, open)
  reportsContract(it, open)
  questionsContract(it, open)
  repetitionContract(it, open)
  refusalsContract(it, open)

  it.effect("an append in a transaction commits and rolls back with it, and is written last", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { sql, transact } = yield* Postgres
      yield* sql`create table if not exists other (n integer)`
      const outcome = yield* transact(Effect.tap(
        store.appendInTransaction({ facts: [fact(1)], expect: { [a]: "noStream" } }),
        Effect.gen(function*() {
          deepStrictEqual(yield* store.head, Fact.beginning)
          yield* sql`insert into other values (1)`
        })
      ))
      deepStrictEqual((yield* outcome).position, 1n)
      const rolledBack = yield* Effect.exit(transact(Effect.gen(function*() {
        yield* Effect.asVoid(store.appendInTransaction({ facts: [fact(2)] }))
        return yield* Effect.fail("changed my mind")
      })))
      deepStrictEqual(rolledBack, Exit.fail("changed my mind"))
      deepStrictEqual(yield* store.head, 1n)
    }))

  it.effect("a conflict fails the transaction it is part of", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { sql, transact } = yield* Postgres
      yield* sql`create table if not exists kept (n integer)`
      yield* store.append({ facts: [fact(1)] })
      const error = yield* Effect.flip(transact(Effect.gen(function*() {
        yield* sql`insert into kept values (1)`
        yield* Effect.asVoid(store.appendInTransaction({ facts: [fact(2)], expect: { [a]: 0 } }))
      })))
      deepStrictEqual(error.reason._tag, "CommitRefused")
      deepStrictEqual(yield* sql`select n from kept`, [])
    }))

  it.effect("a revision in a transaction commits and rolls back with it", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { transact } = yield* Postgres
      const { facts } = yield* store.append({ facts: [fact(1)] })
      const correction = {
        _tag: "Correction",
        revises: facts[0]!.eventId,
        data: { n: 2 },
        reason: "counted again",
        actor: "ada"
      } as const
      const rolledBack = yield* Effect.exit(transact(Effect.gen(function*() {
        yield* Effect.asVoid(store.reviseInTransaction(correction))
        return yield* Effect.fail("changed my mind")
      })))
      deepStrictEqual(rolledBack, Exit.fail("changed my mind"))
      deepStrictEqual((yield* store.history(facts[0]!.eventId)).length, 1)
      const outcome = yield* transact(store.reviseInTransaction(correction))
      deepStrictEqual((yield* outcome).revision, 1)
      const refused = yield* Effect.flip(transact(
        Effect.asVoid(store.reviseInTransaction({ ...correction, expectedRevision: 0 }))
      ))
      deepStrictEqual(refused.reason._tag, "CommitRefused")
      const misplaced = yield* Effect.flip(transact(store.revise(correction)))
      assertInstanceOf(misplaced, EventStoreError)
      deepStrictEqual(misplaced.message, "inside a transaction, use reviseInTransaction")
      deepStrictEqual((yield* store.history(facts[0]!.eventId)).map((each) => each.data), [{ n: 1 }, { n: 2 }])
    }))

  it.effect("the outcome of a write in a transaction is refused where there is no commit to wait for", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { transact } = yield* Postgres
      const { facts } = yield* store.append({ facts: [fact(1)] })
      const correction = { revises: facts[0]!.eventId, data: { n: 2 }, reason: "counted again", actor: "ada" }
      const writes: ReadonlyArray<Effect.Effect<Outcome, EventStoreError>> = [
        store.appendInTransaction({ facts: [fact(2)] }),
        store.reviseInTransaction({ _tag: "Correction", ...correction })
      ]
      for (const write of writes) {
        const within = yield* transact(Effect.gen(function*() {
          const outcome = yield* write
          const sibling = yield* Effect.forkChild(Effect.flip(outcome))
          return [yield* Effect.flip(outcome), yield* Fiber.join(sibling), yield* Effect.flip(transact(outcome))]
        }))
        deepStrictEqual(within.map((error) => error._tag === "NotCommitted" && error.state), ["open", "open", "open"])

        const dropped: Array<Outcome> = []
        const keep = Effect.map(write, (outcome) => {
          dropped.push(outcome)
        })
        yield* Effect.ignore(transact(Effect.andThen(keep, Effect.fail("changed my mind"))))
        yield* transact(Effect.ignore(transact(Effect.andThen(keep, Effect.fail("changed my mind")))))
        yield* Effect.ignore(transact(Effect.gen(function*() {
          yield* transact(keep)
          return yield* Effect.fail("changed my mind")
        })))
        yield* Effect.exit(transact(Effect.andThen(keep, Effect.interrupt)))
        yield* Effect.ignore(transact(Effect.gen(function*() {
          yield* keep
          yield* Effect.asVoid(store.appendInTransaction({ facts: [fact(3)], expect: { [a]: 99 } }))
        })))
        const states = yield* Effect.forEach(
          dropped,
          (outcome) => Effect.map(Effect.flip(outcome), ({ state }) => state)
        )
        deepStrictEqual(states, Array.makeBy(5, () => "rolled_back"))
      }
      deepStrictEqual(yield* store.head, 3n)
    }))

  it.effect("who waits elsewhere for the outcome of a write in a transaction, or after its commit, is told", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { sql, transact } = yield* Postgres
      const handed = yield* Deferred.make<Effect.Effect<Appended, NotCommitted>>()
      const elsewhere = yield* Effect.forkChild(Effect.flatten(Deferred.await(handed)), { startImmediately: true })
      const afterwards = yield* Deferred.make<Appended, NotCommitted>()
      yield* transact(Effect.gen(function*() {
        const outcome = yield* store.appendInTransaction({ facts: [fact(1)] })
        yield* sql.afterCommit(Effect.asVoid(Deferred.into(outcome, afterwards)))
        yield* Deferred.succeed(handed, outcome)
      }))
      deepStrictEqual((yield* Fiber.join(elsewhere)).position, 1n)
      deepStrictEqual((yield* Deferred.await(afterwards)).position, 1n)
    }))

  it.effect("more transactions than connections look up what was known at a time, and all are answered", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { sql, transact } = yield* Postgres
      yield* store.append({ facts: [fact(1)] })
      const read = (time: Timestamp.Timestamp) =>
        Effect.map(store.read({ stream: a, knownAt: { time } }), ({ facts }) => facts.length)
      const now = Effect.map(
        sql<{ readonly now: Timestamp.Timestamp }>`select clock_timestamp() as now`,
        (rows) => rows[0]!.now
      )
      const shared = yield* now
      // The same moment as well, which others ask for who are in no transaction.
      const inTransaction = transact(Effect.gen(function*() {
        const own = yield* now
        return [yield* read(own), yield* read(shared)]
      }))
      const answers = yield* Effect.all(
        Array.makeBy(40, (n) => n % 4 === 0 ? Effect.map(read(shared), (found) => [found]) : inTransaction),
        { concurrency: "unbounded" }
      )
      deepStrictEqual(answers.flat(), Array.makeBy(70, () => 1))
      deepStrictEqual(yield* transact(store.positionAt({ time: shared })), 1n)
    }))

  it.effect("a transaction with a snapshot of its own is refused a moment after it", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { transact } = yield* Postgres
      yield* store.append({ facts: [fact(1)] })
      const snapshot = yield* Latch.make()
      const written = yield* Latch.make()
      const moment = yield* Deferred.make<Timestamp.Timestamp>()
      const reading = yield* transact(Effect.gen(function*() {
        deepStrictEqual((yield* store.read({})).facts.length, 1)
        yield* snapshot.open
        yield* written.await
        const after = { time: yield* Deferred.await(moment) }
        const errors = [
          yield* Effect.flip(store.read({ knownAt: after })),
          yield* Effect.flip(store.read({ knownAt: { position: Fact.Position.make(2n) } }))
        ]
        return [errors.map(({ message }) => message), (yield* store.read({})).facts.length] as const
      })).pipe(
        Effect.provideService(SqlClient.BeginTransaction, "begin isolation level repeatable read"),
        Effect.forkChild({ startImmediately: true })
      )
      yield* snapshot.await
      yield* Deferred.succeed(moment, (yield* store.append({ facts: [fact(2)] })).recordedAt)
      yield* written.open
      const refused = "the transaction sees nothing of that moment: its snapshot was taken before"
      deepStrictEqual(yield* Fiber.join(reading), [[refused, refused], 1])
    }))

  it.effect("a plain write inside a transaction is refused, and told what to use instead", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { sql, transact } = yield* Postgres
      const outside = yield* store.append({ facts: [fact(1)] })
      const revises = outside.facts[0]!.eventId
      // One that the client has opened as well: whoever is told of a fact has to find it.
      for (const byClient of [false, true]) {
        const refused = <A>(write: Effect.Effect<A, EventStoreError>) =>
          Effect.gen(function*() {
            const error = yield* byClient ? Effect.flip(sql.withTransaction(write)) : Effect.flip(transact(write))
            assertInstanceOf(error, EventStoreError)
            deepStrictEqual("path" in error.reason && error.reason.path, "transaction")
            return error.message
          })
        deepStrictEqual(
          yield* refused(store.append({ facts: [fact(1)] })),
          "inside a transaction, use appendInTransaction"
        )
        deepStrictEqual(
          yield* refused(store.revise({ _tag: "Retraction", revises, reason: "typing error", actor: "ada" })),
          "inside a transaction, use reviseInTransaction"
        )
        deepStrictEqual(
          yield* refused(store.streams.setState(a, "archived", { actor: "ada", reason: "audit" })),
          "inside a transaction, nothing can be said of a stream"
        )
      }
      deepStrictEqual([yield* store.head, yield* store.knownHead], [outside.position, outside.position])
    }))

  it.effect("a transaction that wrote elsewhere first stops no subscriber, and its facts come in commit order", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { sql, transact } = yield* Postgres
      yield* sql`create table if not exists early (n integer)`
      const held = yield* Latch.make()
      const finish = yield* Latch.make()
      const early = yield* transact(Effect.gen(function*() {
        yield* sql`insert into early values (1)`
        yield* Effect.asVoid(store.appendInTransaction({ facts: [fact(99)] }))
        yield* held.open
        yield* finish.await
      })).pipe(Effect.forkChild({ startImmediately: true }))
      yield* held.await
      yield* store.append({ facts: [fact(1)] })
      const one = yield* store.subscribe({ after: Fact.beginning }).pipe(Stream.take(1), Stream.runCollect)
      deepStrictEqual(one.flat().map((each) => each.data), [{ n: 1 }])
      yield* finish.open
      yield* Fiber.join(early)
      const two = yield* store.subscribe({ after: Fact.Position.make(1n) }).pipe(Stream.take(1), Stream.runCollect)
      deepStrictEqual(two.flat().map((each) => [each.position, each.version, each.data]), [[Fact.Position.make(2n), 2, {
        n: 99
      }]])
    }))

  it.effect("two stores of one database have positions of their own", () =>
    Effect.gen(function*() {
      const [one, two] = [yield* open, yield* open]
      yield* one.append({ facts: [fact(1), fact(2)] })
      deepStrictEqual((yield* two.append({ facts: [fact(1)] })).position, 1n)
      deepStrictEqual(yield* one.head, 2n)
    }))

  it.effect("two openings of one store share its log, and wake each other", () =>
    Effect.gen(function*() {
      const [writer, reader] = [
        yield* openNamed("shared"),
        yield* EventStorePostgres.make({ name: "shared", pollInterval: "1 hour" })
      ]
      const seen = yield* reader.subscribe({ after: Fact.beginning }).pipe(
        Stream.flattenIterable,
        Stream.take(20),
        Stream.runCollect,
        Effect.forkChild({ startImmediately: true })
      )
      yield* Effect.forEach(Array.range(1, 20), (n) => writer.append({ facts: [fact(n)] }), { discard: true })
      deepStrictEqual((yield* Fiber.join(seen)).map((each) => each.version), Array.range(1, 20))
    }))

  it.effect("a value that PostgreSQL refuses fails alone", () =>
    Effect.gen(function*() {
      const store = yield* open
      // Only the database can tell: the validity ends before the moment of recording, which is its beginning.
      const impossible = { ...fact(0), validTo: Timestamp.fromMicros(0n) }
      const results = yield* Effect.forEach(
        Array.range(1, 10),
        (n) =>
          Effect.result(store.append({ facts: [n === 5 ? impossible : fact(n, Fact.streamId("account", `${n}`))] })),
        { concurrency: "unbounded" }
      )
      deepStrictEqual(results.map((each) => each._tag === "Success"), Array.range(1, 10).map((n) => n !== 5))
      deepStrictEqual(yield* store.head, 9n)
    }))

  it.effect("an append that is repeated after its period has ended is answered with the first result", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { recordedAt } = yield* store.append({ facts: [fact(0)] })
      const validTo = Timestamp.fromMicros(recordedAt + 1_000_000n)
      const other = Fact.streamId("account", "b")
      const appends = [[fact(1)], [fact(2, other), fact(3)]].map((facts, index) => ({
        facts: facts.map((each, place) => ({
          ...each,
          validTo,
          eventId: Fact.EventId.make(`00000000-0000-7000-8000-0000000000${index}${place}`)
        }))
      }))
      const first = yield* Effect.forEach(appends, store.append)
      yield* store.append({ facts: [fact(4)] }).pipe(
        Effect.repeat({ until: ({ recordedAt }) => recordedAt > validTo, schedule: Schedule.spaced("20 millis") })
      )
      const again = yield* Effect.forEach(appends, store.append)
      deepStrictEqual(again.map(({ position }) => position), first.map(({ position }) => position))
      deepStrictEqual(again.map(({ duplicate }) => duplicate), [true, true])
    }))

  it.effect("an append that is interrupted is stored whole or not at all, and delays nobody", () =>
    Effect.gen(function*() {
      const store = yield* open
      const append = (n: number) => store.append({ facts: [fact(n), fact(n, Fact.streamId("account", "b"))] })
      for (let n = 0; n < 100; n++) {
        // Some alone, some with others behind them.
        const others = yield* Effect.forEach(
          Array.range(0, n % 3),
          (k) => Effect.forkChild(append(k), { startImmediately: true })
        )
        yield* Effect.sleep(`${n % 20 * 50} micros`)
        yield* Fiber.interrupt(others[0]!)
        yield* Effect.forEach(others.slice(1), Fiber.join)
        yield* append(n)
      }
      // The last one that was interrupted may still be on its way, and ends whole or not at all as well.
      const head = yield* store.head
      const log = yield* store.readLog({ after: Fact.beginning, upTo: head })
      deepStrictEqual(log.map(({ position }) => position), log.map((_, index) => BigInt(index + 1)))
      deepStrictEqual(
        log.filter((_, index) => index % 2 === 0).map(({ data }) => data),
        log.filter((_, index) => index % 2 === 1).map(({ data }) => data)
      )
      deepStrictEqual(log.length >= 2 * (100 + 99), true)
      deepStrictEqual(head, BigInt(log.length))
    }))

  it.effect("what was accepted is written before the store closes", () =>
    Effect.gen(function*() {
      const name = `closing ${++stores}`
      const pending = yield* Effect.scoped(Effect.gen(function*() {
        const store = yield* openNamed(name)
        return yield* Effect.forEach(
          Array.range(1, 50),
          (n) => store.append({ facts: [fact(n)] }).pipe(Effect.forkDetach({ startImmediately: true }))
        )
      }))
      yield* Effect.forEach(pending, Fiber.join, { discard: true })
      const reopened = yield* openNamed(name)
      deepStrictEqual(yield* reopened.head, 50n)
    }))

  it.effect("a closed store refuses appends", () =>
    Effect.gen(function*() {
      const store = yield* Effect.scoped(open)
      const error = yield* Effect.flip(store.append({ facts: [fact(1)] }))
      assertInstanceOf(error.reason, StoreUnavailable)
    }))
})
