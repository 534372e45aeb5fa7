import { assert, it } from "@effect/vitest"
import * as Circuit from "@strata/resilience/breaker/Circuit"
import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
import * as CircuitState from "@strata/resilience/breaker/CircuitState"
import * as Effect from "effect/Effect"
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
