import { assert, describe, it } from "@effect/vitest"
import * as CommitWork from "@strata/event-store/CommitWork"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import * as EventIds from "@strata/event-store/EventIds"
import * as Fact from "@strata/event-store/Fact"
import * as GroupAppend from "@strata/event-store/GroupAppend"
import * as PreparedAppend from "@strata/event-store/PreparedAppend"
import * as Sealing from "@strata/event-store/Sealing"
import { Postgres } from "@strata/postgres/Postgres"
import * as Retrying from "@strata/postgres/Retrying"
import * as SeededScheduler from "@strata/testing/SeededScheduler"
import * as Arr from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as SqlError from "effect/sql/SqlError"

// What is gathered, and by whom it is written, is the matter here; that it is stored is tested on PostgreSQL. Each append is of
// a tenant of its own, so each is a statement of its own, and every statement writes.
const answering = (rows: Postgres["Service"]["rows"]) =>
  Layer.mock(Postgres, {
    schema: "strata",
    role: undefined,
    holdsConnection: Effect.succeed(false),
    mayNotify: () => Effect.succeed(false),
    rows
  })

/** What the statement says of one that is written. */
const written = [[[0n, 0n, 1n, 1n]]]
const Statements = answering(() => Effect.as(Effect.andThen(Effect.yieldNow, Effect.yieldNow), written))

const open = (postgres: Postgres["Service"], tries: number) =>
  GroupAppend.make(postgres, {
    storeId: 1,
    retry: Schedule.recurs(tries),
    work: CommitWork.make(postgres),
    signature: "",
    committed: () => Effect.void
  })

const prepare = Effect.fnUntraced(function*(n: number) {
  const random = yield* SecureRandom.SecureRandom
  const fact = { stream: Fact.streamId("account", `${n}`), type: "Counted", data: { n } }
  return yield* Effect.provideService(
    PreparedAppend.prepare({ facts: [fact] }, random, Sealing.none.seal),
    CurrentTenant,
    `tenant ${n}`
  )
})

/** A failure that PostgreSQL tells, or of a connection that broke under a statement. */
const failure = (kind: "refused" | "lost") =>
  new SqlError.SqlError({
    reason: kind === "refused"
      ? new SqlError.UnknownError({ cause: Object.assign(new Error("busy"), { code: "40001" }), operation: "query" })
      : new SqlError.ConnectionError({ cause: new Error("reset"), operation: "query" })
  })

/** How many statements two tries after the first cost, when all of them fail. */
const statementsOf = Effect.fnUntraced(function*(
  kind: "refused" | "lost",
  use: (group: GroupAppend.GroupAppend, append: PreparedAppend.PreparedAppend) => Effect.Effect<unknown>
) {
  let statements = 0
  const postgres = yield* Effect.provide(
    Postgres,
    answering(() =>
      Effect.andThen(
        Effect.yieldNow,
        Effect.suspend(() => {
          statements++
          return Effect.fail(failure(kind))
        })
      )
    )
  )
  const group = yield* open(postgres, 1)
  yield* use(group, yield* prepare(1))
  return statements
}, Effect.scoped)

describe("a lone append that fails", () => {
  const above = (mark: Retrying.Above) => (group: GroupAppend.GroupAppend, append: PreparedAppend.PreparedAppend) =>
    Effect.exit(Effect.provideService(group.append(append), Retrying.Retrying, mark))

  for (
    const [mark, kind, statements] of [
      ["nothing", "refused", 3],
      ["nothing", "lost", 3],
      ["harmless", "refused", 1],
      ["harmless", "lost", 3],
      ["everything", "refused", 1],
      ["everything", "lost", 1]
    ] as const
  ) {
    it.live(`costs ${statements} statements when it is ${kind} and ${mark} is retried above`, () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* statementsOf(kind, above(mark)), statements)
      }).pipe(Effect.provide(EventIds.layerRandom)))
  }
})

describe("group append", () => {
  it.live("sends a batch again whatever is retried above one of its callers", () =>
    Effect.gen(function*() {
      const statements = yield* statementsOf("refused", (group, append) =>
        Effect.gen(function*() {
          const first = yield* Effect.forkChild(Effect.exit(group.append(append)), { startImmediately: true })
          // The first one is being written, so the second waits for a batch.
          const second = Effect.exit(Effect.flatMap(prepare(2), (append) => Retrying.marked(group.append(append))))
          yield* Effect.all([second, Fiber.join(first)], { concurrency: "unbounded" })
        }).pipe(Effect.provide(EventIds.layerRandom)))
      assert.strictEqual(statements, 6)
    }).pipe(Effect.provide(EventIds.layerRandom)))

  it.live("tells a defect to those whose append it is, and goes on with others", () =>
    Effect.gen(function*() {
      let statements = 0
      const postgres = yield* Effect.provide(
        Postgres,
        answering(() =>
          Effect.andThen(
            Effect.yieldNow,
            Effect.suspend(() => ++statements === 2 ? Effect.die("a bug") : Effect.succeed(written))
          )
        )
      )
      const group = yield* open(postgres, 0)
      // Tenants of their own: one statement each.
      const fibers = yield* Effect.forEach(Arr.range(1, 4), (n) =>
        Effect.flatMap(prepare(n), (append) =>
          Effect.forkChild(Effect.exit(group.append(append)), { startImmediately: true })))
      const exits = yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(
        exits.map(({ _tag }) =>
          _tag
        ),
        ["Success", "Failure", "Success", "Success"]
      )
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(Effect.flatMap(prepare(5), group.append))))
    }).pipe(Effect.scoped, Effect.provide(EventIds.layerRandom)))

  // Closing waits by the real clock.
  it.live("leaves nobody waiting, wherever fibers yield and are interrupted", () =>
    Effect.gen(function*() {
      const postgres = yield* Postgres
      const appends = yield* Effect.forEach(Arr.range(1, 40), prepare)
      yield* SeededScheduler.forEachSeed(2_000, (seed) =>
        Effect.gen(function*() {
          const next = SeededScheduler.random(seed)
          const group = yield* open(postgres, 0)
          for (const _ of Arr.range(1, 3)) {
            const some = appends.slice(0, 1 + Math.floor(next() * 40))
            const fibers = yield* Effect.forEach(some, (append) => Effect.forkChild(group.append(append)))
            const interrupted = fibers.filter(() => next() < 0.2)
            yield* Effect.forEach(interrupted, (fiber) => Fiber.interrupt(fiber))
            // Nobody comes after them: who is not written now waits for ever.
            const exits = yield* Effect.forEach(fibers, Fiber.await)
            assert.isAtMost(exits.filter(Exit.isFailure).length, interrupted.length)
          }
        }).pipe(Effect.scoped))
    }).pipe(Effect.provide([Statements, EventIds.layerRandom])), 30_000)
})
