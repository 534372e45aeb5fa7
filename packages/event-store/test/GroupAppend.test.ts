import { assert, describe, it } from "@effect/vitest"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import * as EventIds from "@strata/event-store/EventIds"
import * as Fact from "@strata/event-store/Fact"
import * as GroupAppend from "@strata/event-store/GroupAppend"
import * as PreparedAppend from "@strata/event-store/PreparedAppend"
import { Postgres } from "@strata/postgres/Postgres"
import * as SeededScheduler from "@strata/testing/SeededScheduler"
import * as Arr from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"

// What is gathered, and by whom it is written, is the matter here; that it is stored is tested on PostgreSQL. Each append is of
// a tenant of its own, so each is a statement of its own, and every statement writes.
const Statements = Layer.mock(Postgres, {
  schema: "strata",
  role: undefined,
  rows: () => Effect.as(Effect.andThen(Effect.yieldNow, Effect.yieldNow), [[0, 0, 1n, 1n]])
})

const prepare = Effect.fnUntraced(function*(n: number) {
  const random = yield* SecureRandom.SecureRandom
  const fact = { stream: Fact.streamId("account", `${n}`), type: "Counted", data: { n } }
  return yield* Effect.provideService(PreparedAppend.prepare({ facts: [fact] }, random), CurrentTenant, `tenant ${n}`)
})

describe("group append", () => {
  // Closing waits by the real clock.
  it.live("leaves nobody waiting, wherever fibers yield and are interrupted", () =>
    Effect.gen(function*() {
      const postgres = yield* Postgres
      const appends = yield* Effect.forEach(Arr.range(1, 40), prepare)
      yield* SeededScheduler.forEachSeed(2_000, (seed) =>
        Effect.gen(function*() {
          const next = SeededScheduler.random(seed)
          const group = yield* GroupAppend.make(postgres, {
            storeId: 1,
            retry: Schedule.recurs(0),
            committed: () => Effect.void
          })
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
