import { assert, describe, it } from "@effect/vitest"
import * as Fallback from "@strata/resilience/bounds/Fallback"
import * as CircuitBreaker from "@strata/resilience/breaker/CircuitBreaker"
import * as CircuitStore from "@strata/resilience/breaker/CircuitStore"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"

/** A call through a circuit that somebody opened. */
const refused = Effect.gen(function*() {
  const breaker = yield* CircuitBreaker.make()
  yield* breaker.forceOpen("callee", { actor: "ada" })
  return yield* Effect.succeed("fine").pipe(breaker.execute({ key: "callee" }))
}).pipe(Effect.provide(CircuitStore.layerMemory()))

const always = { when: () => true }

describe("a fallback", () => {
  it.effect("answers a refused call with a value", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* Fallback.apply(refused, Fallback.value("default")), "default")
    }))

  it.effect("leaves alone what succeeded", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* Fallback.apply(Effect.succeed("fine"), Fallback.value("default"), always), "fine")
    }))

  it.effect("answers for refusals only, unless it is told for what", () =>
    Effect.gen(function*() {
      const failing: Effect.Effect<string, "down"> = Effect.fail("down")
      assert.strictEqual(yield* Effect.flip(Fallback.apply(failing, Fallback.value("default"))), "down")
      const answer = yield* Fallback.apply(failing, Fallback.value("default"), {
        when: (error: "down") => error === "down"
      })
      assert.strictEqual(answer, "default")
    }))

  it.effect("never answers for a defect or an interruption", () =>
    Effect.gen(function*() {
      const died = yield* Effect.exit(Fallback.apply(Effect.die("broken"), Fallback.value("default"), always))
      assert.isTrue(Exit.hasDies(died))
      const interrupted = yield* Effect.exit(Fallback.apply(Effect.interrupt, Fallback.value("default"), always))
      assert.isTrue(Exit.isFailure(interrupted))
    }))

  it.effect("answers with the last good answer for the key, until it is too old", () =>
    Effect.gen(function*() {
      const prices = yield* Fallback.makeLastGood<string>({ timeToLive: "1 minute" })
      const asked = (key: string, call: Effect.Effect<string, string>) =>
        Fallback.apply(call, Fallback.lastGood(prices, key), always)
      assert.strictEqual(yield* Effect.flip(asked("gold", Effect.fail("down"))), "down")
      assert.strictEqual(yield* asked("gold", Effect.succeed("100")), "100")
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual(yield* asked("gold", Effect.fail("down")), "100")
      assert.strictEqual(yield* Effect.flip(asked("iron", Effect.fail("down"))), "down")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Effect.flip(asked("gold", Effect.fail("down"))), "down")
    }))

  it.effect("remembers no more keys than it may, and forgets the oldest answer first", () =>
    Effect.gen(function*() {
      const answers = yield* Fallback.makeLastGood<number>({ capacity: 2 })
      yield* answers.remember("a", 1)
      yield* answers.remember("b", 2)
      yield* answers.remember("a", 3)
      yield* answers.remember("c", 4)
      const recalled = yield* Effect.forEach(["a", "b", "c"], answers.recall)
      assert.deepStrictEqual(recalled.map(({ _tag }) => _tag), ["Some", "None", "Some"])
    }))

  it.effect("answers with what another effect says of the error", () =>
    Effect.gen(function*() {
      const answer = yield* Fallback.apply(refused, Fallback.other((error) => Effect.succeed(String(error))))
      assert.include(answer, "was opened by ada")
    }))

  it.effect("leaves what it cannot answer to the next one", () =>
    Effect.gen(function*() {
      const answers = yield* Fallback.makeLastGood<string>()
      const answer = yield* refused.pipe(
        Fallback.apply(Fallback.lastGood(answers, "gold")),
        Fallback.apply(Fallback.value("default"))
      )
      assert.strictEqual(answer, "default")
    }))

  it.effect("counts its answers by kind", () =>
    Effect.gen(function*() {
      yield* Fallback.apply(refused, Fallback.value("default"))
      const series = (yield* Metric.snapshot).find(({ attributes, id }) =>
        id === "strata_fallbacks_total" && attributes?.["kind"] === "Value"
      )
      assert.isTrue(series !== undefined && "count" in series.state && Number(series.state.count) >= 1)
    }))
})
