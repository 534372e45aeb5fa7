import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import * as PostgresLayer from "@strata/postgres/Postgres"
import type { PostgresOptions } from "@strata/postgres/PostgresConfig"
import * as Retrying from "@strata/postgres/Retrying"
import type { NotCommitted, TransactionError } from "@strata/postgres/TransactionError"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as TcpProxy from "@strata/testing/TcpProxy"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as SqlClient from "effect/sql/SqlClient"

class Refused extends Data.TaggedError("Refused")<{ readonly why: string }> {}

const table = Effect.fnUntraced(function*(name: string) {
  const { sql } = yield* Postgres
  yield* sql`create table ${sql(name)} (id int primary key, note text)`
  const ids = Effect.map(
    sql<{ readonly id: number }>`select id from ${sql(name)} order by id`,
    (rows) => rows.map(({ id }) => id)
  )
  const insert = (id: number) => Effect.asVoid(sql`insert into ${sql(name)} ${sql.insert({ id })}`)
  return { ids, insert }
})

/** Ends the session of the transaction that calls it, as a failover or an administrator does. */
const terminate = Effect.gen(function*() {
  const { sql } = yield* Postgres
  const [session] = yield* sql<{ readonly pid: number }>`select pg_backend_pid() as pid`
  const other = yield* sql.reserve
  yield* other.execute("select pg_terminate_backend($1::int4)", [session?.pid], undefined)
}).pipe(Effect.scoped, Effect.orDie)

const reasonOf = <E>(error: E | TransactionError): string =>
  typeof error === "object" && error !== null && "reason" in error ? error.reason._tag : String(error)

/** Another pool on the same tables, for instance through a proxy. */
const withPool = (options: PostgresOptions) => <A, E>(self: Effect.Effect<A, E, Postgres>) =>
  Effect.provide(self, PostgresLayer.layer(options), { local: true })

const throughProxy = Effect.gen(function*() {
  const url = yield* PostgresTest.url
  const target = new URL(Redacted.value(url))
  const proxy = yield* TcpProxy.make({ host: target.hostname, port: Number(target.port) })
  return { proxy, url: proxy.through(url) }
})

layer(PostgresTest.layer({ options: { maxConnections: 6, transactionAttempts: 4 } }), { excludeTestServices: true })(
  "Postgres.transact",
  (it) => {
    it.effect("commits all of it or nothing", () =>
      Effect.gen(function*() {
        const { transact } = yield* Postgres
        const { ids, insert } = yield* table("all_or_nothing")
        yield* transact(Effect.andThen(insert(1), insert(2)))
        const error = yield* Effect.flip(transact(Effect.andThen(insert(3), new Refused({ why: "no" }))))
        assert.instanceOf(error, Refused)
        assert.deepStrictEqual(yield* ids, [1, 2])
      }))

    it.effect("a nested one is a savepoint", () =>
      Effect.gen(function*() {
        const { transact } = yield* Postgres
        const { ids, insert } = yield* table("savepoints")
        yield* transact(Effect.gen(function*() {
          yield* insert(1)
          const error = yield* Effect.flip(transact(Effect.andThen(insert(2), insert(1))))
          assert.strictEqual(reasonOf(error), "UniqueViolation")
          yield* transact(insert(3))
        }))
        assert.deepStrictEqual(yield* ids, [1, 3])
      }))

    it.effect("runs the body again when its session is terminated, and what it lost was a typed failure", () =>
      Effect.gen(function*() {
        const { transact } = yield* Postgres
        const { ids, insert } = yield* table("terminated")
        const runs = yield* Ref.make(0)
        yield* transact(Effect.gen(function*() {
          yield* insert(1)
          if ((yield* Ref.getAndUpdate(runs, (n) => n + 1)) === 0) yield* terminate
          yield* insert(2)
        }))
        assert.strictEqual(yield* Ref.get(runs), 2)
        assert.deepStrictEqual(yield* ids, [1, 2])
      }))

    it.effect("runs the body once where a layer above retries, and nothing in it is retried by itself", () =>
      Effect.gen(function*() {
        const { sql, transact } = yield* Postgres
        const runs = yield* Ref.make(0)
        const again = { schedule: Schedule.recurs(2), while: () => true }
        const conflict = Effect.andThen(
          Ref.update(runs, (n) => n + 1),
          sql`do $$ begin raise exception using errcode = '40001'; end $$`
        )
        const count = <A, E>(effect: Effect.Effect<A, E>) => Effect.andThen(Effect.flip(effect), Ref.getAndSet(runs, 0))
        const transaction = transact(Retrying.retry(conflict, again))
        assert.strictEqual(yield* count(transaction), 4)
        assert.strictEqual(yield* count(Retrying.retry(Retrying.marked(transaction), again)), 3)
      }))

    it.effect("retries for itself what it does after the commit", () =>
      Effect.gen(function*() {
        const { sql, transact } = yield* Postgres
        const above = yield* Ref.make<Retrying.Above>("everything")
        const afterwards = Effect.flatMap(Retrying.Retrying, (mark) => Ref.set(above, mark))
        yield* Retrying.marked(transact(Effect.andThen(sql`select 1`, sql.afterCommit(afterwards))))
        assert.strictEqual(yield* Ref.get(above), "nothing")
      }))

    it.effect("runs the body again when the lost session was a defect of the body", () =>
      Effect.gen(function*() {
        const { transact } = yield* Postgres
        const { ids, insert } = yield* table("defects")
        const runs = yield* Ref.make(0)
        yield* transact(Effect.gen(function*() {
          if ((yield* Ref.getAndUpdate(runs, (n) => n + 1)) === 0) yield* terminate
          yield* Effect.orDie(insert(1))
        }))
        assert.strictEqual(yield* Ref.get(runs), 2)
        assert.deepStrictEqual(yield* ids, [1])
      }))

    it.effect("a session lost on every attempt is ConnectionLost, not a defect", () =>
      Effect.gen(function*() {
        const { transact } = yield* Postgres
        const { ids, insert } = yield* table("always_lost")
        const runs = yield* Ref.make(0)
        const error = yield* Effect.flip(transact(Effect.gen(function*() {
          yield* Ref.update(runs, (n) => n + 1)
          yield* Effect.orDie(insert(1))
          yield* terminate
          yield* Effect.orDie(insert(2))
        })))
        assert.strictEqual(reasonOf(error), "ConnectionLost")
        assert.strictEqual(yield* Ref.get(runs), 4)
        assert.deepStrictEqual(yield* ids, [])
      }))

    it.effect("a session lost in a nested one makes the outermost run again", () =>
      Effect.gen(function*() {
        const { transact } = yield* Postgres
        const { ids, insert } = yield* table("nested_lost")
        const runs = yield* Ref.make(0)
        yield* transact(Effect.gen(function*() {
          yield* insert(1)
          const first = (yield* Ref.getAndUpdate(runs, (n) => n + 1)) === 0
          yield* Effect.ignore(transact(Effect.andThen(first ? terminate : Effect.void, insert(2))))
        }))
        assert.strictEqual(yield* Ref.get(runs), 2)
        assert.deepStrictEqual(yield* ids, [1, 2])
      }))

    it.effect("a failure of the domain stays what it is when the rollback fails too", () =>
      Effect.gen(function*() {
        const { transact } = yield* Postgres
        const { ids, insert } = yield* table("domain_failure")
        const error = yield* Effect.flip(
          transact(insert(1).pipe(Effect.andThen(terminate), Effect.andThen(new Refused({ why: "no" }))))
        )
        assert.instanceOf(error, Refused)
        assert.deepStrictEqual(yield* ids, [])
      }))

    it.effect("a bug stays a defect and is not repeated", () =>
      Effect.gen(function*() {
        const { sql, transact } = yield* Postgres
        const runs = yield* Ref.make(0)
        const exit = yield* Effect.exit(
          transact(Effect.andThen(Ref.update(runs, (n) => n + 1), Effect.orDie(sql`select * from nowhere`)))
        )
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        assert.strictEqual(yield* Ref.get(runs), 1)
      }))

    it.effect("serialization failures are repeated until all are through", () =>
      Effect.gen(function*() {
        const { sql, transact } = yield* Postgres
        yield* sql`create table counter (value int)`
        yield* sql`insert into counter values (0)`
        const increment = Effect.gen(function*() {
          const [row] = yield* sql<{ readonly value: number }>`select value from counter`
          yield* sql`update counter set value = ${(row?.value ?? 0) + 1}`
        })
        yield* Effect.replicateEffect(
          transact(increment).pipe(
            Effect.provideService(SqlClient.BeginTransaction, "BEGIN ISOLATION LEVEL SERIALIZABLE")
          ),
          3,
          { concurrency: 3, discard: true }
        )
        assert.deepStrictEqual(yield* sql`select value from counter`, [{ value: 3 }])
      }))

    it.effect("the victim of a deadlock runs again", () =>
      Effect.gen(function*() {
        const { sql, transact } = yield* Postgres
        yield* sql`create table deadlock (id int primary key, value int not null)`
        yield* sql`insert into deadlock values (1, 0), (2, 0)`
        const [left, right] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const add = (id: number) => sql`update deadlock set value = value + 1 where id = ${id}`
        const both = (
          first: number,
          second: number,
          mine: Deferred.Deferred<void>,
          theirs: Deferred.Deferred<void>
        ) =>
          transact(Effect.gen(function*() {
            yield* add(first)
            yield* Deferred.succeed(mine, undefined)
            yield* Deferred.await(theirs)
            yield* add(second)
          }))
        yield* Effect.all([both(1, 2, left, right), both(2, 1, right, left)], { concurrency: 2 })
        assert.deepStrictEqual(yield* sql`select value from deadlock`, [{ value: 2 }, { value: 2 }])
      }))

    it.effect("a plan that went stale under a transaction runs again", () =>
      Effect.gen(function*() {
        const { sql, transact } = yield* Postgres
        yield* sql`create table plans (a int)`
        const read = sql`select * from plans`
        yield* Effect.replicateEffect(read, 2)
        yield* sql`alter table plans add column b int`
        yield* transact(Effect.andThen(sql`select 1`, read))
      }))

    it.effect("a deferred constraint that fails in COMMIT is the database's refusal", () =>
      Effect.gen(function*() {
        const { sql, transact } = yield* Postgres
        yield* sql`create table deferred_unique (id int unique deferrable initially deferred)`
        const error = yield* Effect.flip(
          transact(
            Effect.andThen(sql`insert into deferred_unique values (1)`, sql`insert into deferred_unique values (1)`)
          )
        )
        assert.strictEqual(reasonOf(error), "SqlError")
        assert.deepStrictEqual(yield* sql`select * from deferred_unique`, [])
      }))

    it.effect("a swallowed failure of a statement fails the commit", () =>
      Effect.gen(function*() {
        const { transact } = yield* Postgres
        const { ids, insert } = yield* table("swallowed")
        const error = yield* Effect.flip(transact(Effect.andThen(insert(1), Effect.ignore(insert(1)))))
        assert.strictEqual(error._tag, "TransactionError")
        assert.include(error.message, "rolled the transaction back")
        assert.deepStrictEqual(yield* ids, [])
      }))

    it.effect("an interrupted one is rolled back and not repeated", () =>
      Effect.gen(function*() {
        const { sql, transact } = yield* Postgres
        const { ids, insert } = yield* table("interrupted")
        const exit = yield* transact(Effect.andThen(insert(1), sql`select pg_sleep(60)`)).pipe(
          Effect.timeoutOption("200 millis")
        )
        assert.strictEqual(exit._tag, "None")
        assert.deepStrictEqual(yield* ids, [])
      }))

    it.effect("one in work after the commit is a transaction of its own", () =>
      Effect.gen(function*() {
        const { beforeCommit, sql, transact } = yield* Postgres
        const { ids, insert } = yield* table("after_commit")
        yield* transact(Effect.gen(function*() {
          yield* insert(1)
          yield* sql.afterCommit(Effect.orDie(transact(Effect.andThen(beforeCommit(insert(3)), insert(2)))))
        }))
        assert.deepStrictEqual(yield* ids, [1, 2, 3])
      }))

    it.effect("it is known inside, and neither outside nor after the commit", () =>
      Effect.gen(function*() {
        const { inTransaction, sql, transact } = yield* Postgres
        const after = yield* Deferred.make<boolean>()
        assert.isFalse(yield* inTransaction)
        yield* transact(Effect.gen(function*() {
          assert.isTrue(yield* inTransaction)
          assert.isTrue(yield* transact(inTransaction))
          yield* sql.afterCommit(
            Effect.flatMap(inTransaction, (inside) => Effect.asVoid(Deferred.succeed(after, inside)))
          )
        }))
        assert.isFalse(yield* Deferred.await(after))
        assert.isFalse(yield* inTransaction)
      }))
  }
)

layer(PostgresTest.layer({ options: { maxConnections: 4 } }), { excludeTestServices: true })(
  "Postgres.transact when the outcome of COMMIT is unknown",
  (it) => {
    /** The server commits, and its answer is lost. */
    const losesAnswer = { from: "server", matches: TcpProxy.contains("COMMIT\0"), deliver: false } as const

    it.effect("says so, and does not run again by itself", () =>
      Effect.gen(function*() {
        const { ids, insert } = yield* table("unknown_outcome")
        const { proxy, url } = yield* throughProxy
        yield* Effect.forkScoped(proxy.cutWhen(losesAnswer), { startImmediately: true })
        const error = yield* Effect.flip(
          Effect.flatMap(Postgres, ({ sql, transact }) =>
            transact(sql`insert into unknown_outcome ${sql.insert({ id: 1 })}`)).pipe(withPool({ url }))
        )
        assert.strictEqual(reasonOf(error), "OutcomeUnknown")
        assert.deepStrictEqual(yield* ids, [1])
        yield* insert(2)
      }))

    it.effect("runs an idempotent body again", () =>
      Effect.gen(function*() {
        const { ids } = yield* table("idempotent")
        const { proxy, url } = yield* throughProxy
        yield* Effect.forkScoped(proxy.cutWhen(losesAnswer), { startImmediately: true })
        const runs = yield* Ref.make(0)
        yield* Effect.flatMap(Postgres, ({ sql, transact }) =>
          transact(
            Effect.andThen(
              Ref.update(runs, (n) => n + 1),
              sql`insert into idempotent ${sql.insert({ id: 1 })} on conflict do nothing`
            ),
            { idempotent: true }
          )).pipe(withPool({ url }))
        assert.strictEqual(yield* Ref.get(runs), 2)
        assert.deepStrictEqual(yield* ids, [1])
      }))

    it.effect("a COMMIT that was lost on its way is unknown as well", () =>
      Effect.gen(function*() {
        const { ids } = yield* table("lost_commit")
        const { proxy, url } = yield* throughProxy
        yield* Effect.forkScoped(
          proxy.cutWhen({ from: "client", matches: TcpProxy.contains("COMMIT"), deliver: false }),
          { startImmediately: true }
        )
        const error = yield* Effect.flip(
          Effect.flatMap(
            Postgres,
            ({ sql, transact }) => transact(sql`insert into lost_commit ${sql.insert({ id: 1 })}`)
          ).pipe(withPool({ url }))
        )
        assert.strictEqual(reasonOf(error), "OutcomeUnknown")
        assert.deepStrictEqual(yield* ids, [])
      }))

    it.effect("a connection into a black hole is cut within the socket timeout, in the body and in COMMIT", () =>
      Effect.gen(function*() {
        const { ids } = yield* table("black_hole")
        const { proxy, url } = yield* throughProxy
        const lost = (swallow: Effect.Effect<void>, after: Effect.Effect<void>) =>
          Effect.flatMap(Postgres, ({ sql, transact }) =>
            transact(Effect.gen(function*() {
              yield* Effect.orDie(sql`select 1`)
              yield* swallow
              yield* Effect.orDie(sql`insert into black_hole ${sql.insert({ id: 1 })}`)
              yield* after
            }))).pipe(
              Effect.flip,
              withPool({
                url,
                statementTimeout: "500 millis",
                socketTimeout: "1 second",
                connectTimeout: "500 millis",
                transactionAttempts: 1
              }),
              Effect.timed,
              Effect.ensuring(proxy.pass)
            )
        const [took, error] = yield* lost(proxy.blackhole, Effect.void)
        assert.strictEqual(reasonOf(error), "ConnectionLost")
        assert.isBelow(Duration.toMillis(took), 4_000)
        const [tookInCommit, errorInCommit] = yield* lost(Effect.void, proxy.blackhole)
        assert.strictEqual(reasonOf(errorInCommit), "OutcomeUnknown")
        assert.isBelow(Duration.toMillis(tookInCommit), 4_000)
        assert.deepStrictEqual(yield* ids, [])
      }))

    it.effect("a server that cannot be reached is Unavailable", () =>
      Effect.gen(function*() {
        const { proxy, url } = yield* throughProxy
        const error = yield* Effect.flatMap(Postgres, ({ sql, transact }) =>
          Effect.andThen(proxy.cut, Effect.flip(transact(sql`select 1`)))).pipe(
            withPool({ url, transactionAttempts: 2 })
          )
        assert.strictEqual(reasonOf(error), "Unavailable")
      }))
  }
)

layer(PostgresTest.layer(), { excludeTestServices: true })("Postgres.beforeCommit", (it) => {
  it.effect("runs last, in order, and may register more", () =>
    Effect.gen(function*() {
      const { beforeCommit, transact } = yield* Postgres
      const { ids, insert } = yield* table("ordered")
      const order = yield* Ref.make<ReadonlyArray<string>>([])
      const note = (step: string) => Ref.update(order, (steps) => [...steps, step])
      yield* transact(Effect.gen(function*() {
        yield* beforeCommit(Effect.andThen(note("first"), beforeCommit(Effect.andThen(note("more"), insert(3)))))
        yield* transact(beforeCommit(note("nested")))
        yield* beforeCommit(note("last"))
        yield* note("body")
        yield* insert(1)
      }))
      assert.deepStrictEqual(yield* Ref.get(order), ["body", "first", "nested", "last", "more"])
      assert.deepStrictEqual(yield* ids, [1, 3])
    }))

  it.effect("its failure rolls back and is carried as it is", () =>
    Effect.gen(function*() {
      const { beforeCommit, transact } = yield* Postgres
      const { ids, insert } = yield* table("refused")
      const refusal = new Refused({ why: "conflict" })
      const error = yield* Effect.flip(transact(Effect.andThen(beforeCommit(Effect.fail(refusal)), insert(1))))
      assert.strictEqual(error._tag, "TransactionError")
      assert.isTrue(error.reason._tag === "CommitRefused" && error.reason.cause === refusal)
      assert.deepStrictEqual(yield* ids, [])
    }))

  it.effect("what a rolled back savepoint registered is dropped", () =>
    Effect.gen(function*() {
      const { beforeCommit, transact } = yield* Postgres
      const { ids, insert } = yield* table("dropped")
      yield* transact(Effect.gen(function*() {
        yield* Effect.ignore(transact(Effect.andThen(beforeCommit(insert(1)), new Refused({ why: "inner" }))))
        yield* transact(beforeCommit(insert(2)))
      }))
      assert.deepStrictEqual(yield* ids, [2])
    }))

  it.effect("a lost connection in it makes the body run again", () =>
    Effect.gen(function*() {
      const postgres = yield* Postgres
      const { ids, insert } = yield* table("refused_by_loss")
      const runs = yield* Ref.make(0)
      const unsettled = Effect.provideService(terminate, Postgres, postgres)
      yield* postgres.transact(Effect.gen(function*() {
        const first = (yield* Ref.getAndUpdate(runs, (n) => n + 1)) === 0
        yield* postgres.beforeCommit(Effect.andThen(first ? unsettled : Effect.void, insert(1)))
      }))
      assert.strictEqual(yield* Ref.get(runs), 2)
      assert.deepStrictEqual(yield* ids, [1])
    }))

  it.effect("dies outside a transaction, and after its end", () =>
    Effect.gen(function*() {
      const { beforeCommit, transact } = yield* Postgres
      const outside = yield* Effect.exit(beforeCommit(Effect.void))
      assert.isTrue(Exit.isFailure(outside) && Cause.hasDies(outside.cause))
      const late = yield* transact(
        Effect.context<never>().pipe(
          Effect.map((context) => Effect.provideContext(beforeCommit(Effect.void), context))
        )
      )
      const exit = yield* Effect.exit(late)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
    }))
})

layer(PostgresTest.layer({ options: { maxConnections: 4 } }), { excludeTestServices: true })(
  "Postgres.atCommit",
  (it) => {
    it.effect("hands over what the work gives, after the commit", () =>
      Effect.gen(function*() {
        const { atCommit, transact } = yield* Postgres
        const { ids, insert } = yield* table("handed_over")
        const outcome = yield* transact(Effect.andThen(insert(1), transact(atCommit(Effect.as(insert(2), "done")))))
        assert.strictEqual(yield* outcome, "done")
        assert.deepStrictEqual(yield* ids, [1, 2])
      }))

    it.effect("fails by name where there was no commit, each attempt for itself", () =>
      Effect.gen(function*() {
        const { atCommit, transact } = yield* Postgres
        const { ids, insert } = yield* table("not_handed_over")
        const outcomes: Array<Effect.Effect<string, NotCommitted>> = []
        const work = atCommit(Effect.as(insert(1), "done"))
        const note = Effect.map(work, (outcome) => outcomes.push(outcome))
        const told = Effect.suspend(() =>
          Effect.forEach(outcomes.splice(0), (outcome) =>
            Effect.match(outcome, { onFailure: ({ state }) => state, onSuccess: (given) => given }))
        )
        yield* Effect.ignore(transact(Effect.andThen(note, new Refused({ why: "changed my mind" }))))
        yield* transact(Effect.ignore(transact(Effect.andThen(note, new Refused({ why: "a savepoint" })))))
        yield* Effect.exit(transact(Effect.andThen(note, Effect.interrupt)))
        yield* Effect.exit(transact(Effect.andThen(note, Effect.die("a bug"))))
        yield* Effect.ignore(transact(Effect.andThen(note, atCommit(new Refused({ why: "the next one" })))))
        const waiting = yield* transact(Effect.andThen(note, Effect.never)).pipe(
          Effect.forkChild({ startImmediately: true })
        )
        yield* Effect.yieldNow.pipe(Effect.repeat({
          until: () =>
            outcomes.length === 6
        }))
        yield* Fiber.interrupt(waiting)
        assert.deepStrictEqual(yield* told, Array.from({ length: 6 }, () => "rolled_back"))
        assert.deepStrictEqual(yield* ids, [])

        const runs = yield* Ref.make(0)
        yield* transact(Effect.gen(function*() {
          yield* note
          if ((yield* Ref.getAndUpdate(runs, (n) => n + 1)) === 0) yield* terminate
          yield* insert(2)
        }))
        assert.deepStrictEqual(yield* told, ["rolled_back", "done"])
      }))

    it.effect("says that nobody knows, where the answer to COMMIT was lost", () =>
      Effect.gen(function*() {
        const { insert } = yield* table("answer_lost")
        const { proxy, url } = yield* throughProxy
        yield* withPool({ url, maxConnections: 1 })(Effect.gen(function*() {
          const { atCommit, transact } = yield* Postgres
          const handed = yield* Deferred.make<Effect.Effect<string, NotCommitted>>()
          const error = yield* Effect.flip(transact(Effect.gen(function*() {
            yield* Deferred.succeed(handed, yield* atCommit(Effect.succeed("done")))
            yield* Effect.forkDetach(
              proxy.cutWhen({ from: "server", matches: TcpProxy.contains("COMMIT"), deliver: false }),
              { startImmediately: true }
            )
          })))
          assert.strictEqual(reasonOf(error), "OutcomeUnknown")
          assert.strictEqual((yield* Effect.flip(Effect.flatten(Deferred.await(handed)))).state, "unknown")
        }))
        yield* insert(1)
      }))

    it.effect("fails at once within its own transaction, where there is no end to wait for", () =>
      Effect.gen(function*() {
        const { atCommit, transact } = yield* Postgres
        const error = yield* transact(Effect.gen(function*() {
          const outcome = yield* transact(atCommit(Effect.void))
          return yield* Effect.flip(outcome)
        }))
        assert.strictEqual(error.state, "open")
      }))

    it.effect("dies in a transaction that transact has not opened, since nobody would run the work", () =>
      Effect.gen(function*() {
        const { atCommit, beforeCommit, sql, transact } = yield* Postgres
        for (const registered of [Effect.asVoid(atCommit(Effect.void)), beforeCommit(Effect.void)]) {
          const exit = yield* Effect.exit(sql.withTransaction(transact(registered)))
          assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        }
      }))
  }
)

layer(PostgresTest.layer({ options: { maxConnections: 2 } }), { excludeTestServices: true })("Postgres.aside", (it) => {
  it.effect("is no part of the transaction, and there for all who hold the pool's connections", () =>
    Effect.gen(function*() {
      const { aside, transact } = yield* Postgres
      const { ids, insert } = yield* table("beside")
      const beside = (id: number) => Effect.asVoid(aside`insert into ${aside("beside")} ${aside.insert({ id })}`)
      const refused = (id: number) =>
        transact(insert(-id).pipe(Effect.andThen(beside(id)), Effect.andThen(new Refused({ why: "after it" }))))
      yield* Effect.forEach([1, 2, 3, 4, 5, 6], (id) => Effect.flip(refused(id)), { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* ids, [1, 2, 3, 4, 5, 6])
    }))
})
