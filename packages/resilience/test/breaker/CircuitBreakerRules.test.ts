import { assert, it } from "@effect/vitest"
import * as Circuit from "@strata/resilience/breaker/Circuit"
import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
import * as CircuitState from "@strata/resilience/breaker/CircuitState"
import * as CircuitStore from "@strata/resilience/breaker/CircuitStore"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"

const rules = Circuit.rules(CircuitPolicy.make({ minimumCalls: 1, openDuration: "3 seconds" }))
const written = Schema.fromJsonString(Schema.toCodecJson(CircuitState.Circuit))

it.effect("an open circuit that was written down and read again waits as long as was left, and no longer", () =>
  Effect.gen(function*() {
    const at = 1_800_000_000_000
    const { circuit } = Circuit.end(rules, CircuitState.initial, at, {
      generation: 1,
      probe: undefined,
      outcome: "Failure",
      duration: 5
    })
    const json = yield* Schema.encodeEffect(written)(circuit)
    const again = yield* Schema.decodeEffect(written)(json)
    assert.deepStrictEqual(again, circuit)
    const early = Circuit.admit(rules, again, at + 2999).decision
    assert.deepStrictEqual(early, { _tag: "Rejected", phase: "Open", retryAfter: 1 })
    const due = Circuit.admit(rules, again, at + 3000)
    assert.deepStrictEqual(due.decision, { _tag: "Admitted", generation: 3, probe: 1 })
  }))

it("an event changes no state, it makes another one", () => {
  const ended = { generation: 1, probe: undefined, outcome: "Failure", duration: 5 } as const
  const before = JSON.stringify(CircuitState.initial)
  Circuit.end(rules, CircuitState.initial, 10, ended)
  Circuit.command(rules, CircuitState.initial, 10, { _tag: "Disable", actor: "ada" })
  assert.strictEqual(JSON.stringify(CircuitState.initial), before)
})

it.effect("counts that the memory gathers are those of every call for itself, over 10,000 schedules", () =>
  Effect.gen(function*() {
    const policy = CircuitPolicy.make({ window: "4 seconds", minimumCalls: 5, slowCallDuration: "90 millis" })
    const rules = Circuit.rules(policy)
    let gathered = 0
    for (let seed = 0; seed < 10_000; seed++) {
      const draw = draws(seed)
      let now = 0
      const clock = { ...(yield* Clock.Clock), monotonicTimeNanosUnsafe: () => BigInt(now) * 1_000_000n }
      const store = yield* Layer.build(CircuitStore.layerMemory()).pipe(Effect.provideService(Clock.Clock, clock))
      const circuits = yield* Effect.provide(
        CircuitStore.CircuitStore.use((store) => store.open({ rules, tell: () => Effect.void })),
        store
      )
      let expected: CircuitState.Circuit | undefined
      for (let call = 0; call < 25; call++) {
        now += draw(300)
        const decision = yield* circuits.admit("a")
        if (expected === undefined) expected = (yield* circuits.read("a")).circuit
        const admitted = Circuit.admit(rules, expected, now)
        assert.deepStrictEqual(decision, admitted.decision, `seed ${seed}`)
        expected = admitted.circuit
        if (decision._tag === "Rejected") continue
        const ended: CircuitState.Ended = {
          generation: decision.generation - (draw(20) === 0 ? 1 : 0),
          probe: decision.probe,
          outcome: draw(8) === 0 ? "Failure" : "Success",
          duration: draw(100)
        }
        const step = Circuit.end(rules, expected, now, ended)
        assert.strictEqual(yield* circuits.end("a", ended), step.decision, `seed ${seed}`)
        expected = step.circuit
        if (draw(10) > 0) {
          gathered++
          continue
        }
        assert.deepStrictEqual((yield* circuits.read("a")).circuit, expected, `seed ${seed}`)
      }
    }
    assert.isAbove(gathered, 100_000)
  }).pipe(Effect.scoped))

/** The numbers of a seed: xorshift32 (Marsaglia, 2003). */
const draws = (seed: number) => {
  let state = (seed + 1) * 2_654_435_761 >>> 0
  return (below: number): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}
