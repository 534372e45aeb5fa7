import { assert, it } from "@effect/vitest"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventId, type Fact, Position, streamId } from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Projection from "@strata/projections/Projection"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"

const Counted = EventDefinition.make("Counted", { fields: { by: Schema.Int } })
const Counters = EventDefinition.set([Counted])

const fact = (position: bigint, fields: Partial<Fact> = {}): Fact => ({
  position: Position.make(position),
  stream: streamId("counter", "1"),
  version: Number(position),
  origin: Position.make(position),
  eventId: EventId.make(`00000000-0000-7000-8000-${String(position).padStart(12, "0")}`),
  type: "Counted",
  schemaVersion: 1,
  data: { by: Number(position) },
  metadata: {},
  correlationId: "correlation",
  causationId: null,
  tenant: "default",
  actor: null,
  traceparent: null,
  validFrom: Timestamp.fromMicros(0n),
  validTo: Timestamp.infinity,
  recordedAt: Timestamp.fromMicros(0n),
  revision: 0,
  revises: null,
  retracted: false,
  reason: null,
  ...fields
})

const recording = (categories?: ReadonlyArray<string>) => {
  const applied: Array<number> = []
  const projection = Projection.make({
    name: "recording",
    events: Counters,
    categories,
    apply: (batch) => Effect.sync(() => applied.push(...batch.map(({ event }) => event.by))),
    reset: Effect.void
  })
  return { applied, projection }
}

/** None of these projections uses it. */
const noDatabase = Effect.provideService(SqlClient.SqlClient, {} as SqlClient.SqlClient)

const applied = Effect.fnUntraced(function*(
  { applied, projection }: ReturnType<typeof recording>,
  facts: ReadonlyArray<Fact>,
  after: bigint
) {
  const prepared = yield* Effect.fromResult(projection.prepare(facts))
  yield* noDatabase(prepared.applyAfter(after))
  return { size: prepared.size, applied }
})

it.effect("a projection gets the facts of its events and passes over others", () =>
  Effect.gen(function*() {
    const facts = [fact(1n), fact(2n, { type: "Closed" }), fact(3n)]
    assert.deepStrictEqual(yield* applied(recording(), facts, 0n), { size: 2, applied: [1, 3] })
  }))

it.effect("a projection passes over facts of the same type in streams of other categories", () =>
  Effect.gen(function*() {
    const facts = [fact(1n), fact(2n, { stream: streamId("other", "1"), data: { by: "another shape" } }), fact(3n)]
    assert.deepStrictEqual(yield* applied(recording(["counter"]), facts, 0n), { size: 2, applied: [1, 3] })
  }))

it.effect("a prepared batch applies only what stands after the checkpoint", () =>
  Effect.gen(function*() {
    const facts = [fact(1n), fact(2n), fact(3n)]
    assert.deepStrictEqual((yield* applied(recording(), facts, 2n)).applied, [3])
    assert.deepStrictEqual((yield* applied(recording(), facts, 3n)).applied, [])
  }))

it("a fact that cannot be decoded is refused by its position", () => {
  const prepared = recording().projection.prepare([fact(1n), fact(2n, { data: { by: "two" } })])
  assert.isTrue(Result.isFailure(prepared) && prepared.failure.position === 2n)
})
