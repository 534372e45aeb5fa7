import { assert, it } from "@effect/vitest"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventId, type Fact, Position, streamId } from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as GenerationSchema from "@strata/projections/GenerationSchema"
import * as Projection from "@strata/projections/Projection"
import * as ProjectionKey from "@strata/projections/ProjectionKey"
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
    tables: "create table recorded (tenant text, stream text)",
    apply: (batch) => Effect.sync(() => applied.push(...batch.map(({ event }) => event.by)))
  })
  return { applied, projection }
}

/** None of these projections uses it. */
const noDatabase = Effect.provideService(SqlClient.SqlClient, {} as SqlClient.SqlClient)

it("a projection wants the facts of its events and passes over others", () => {
  const { projection } = recording()
  const facts = [fact(1n), fact(2n, { type: "Closed" }), fact(3n)]
  assert.deepStrictEqual(facts.filter(projection.wants).map(({ position }) => position), [1n, 3n])
})

it("a projection passes over facts of the same type in streams of other categories", () => {
  const { projection } = recording(["counter"])
  const facts = [fact(1n), fact(2n, { stream: streamId("other", "1") }), fact(3n)]
  assert.deepStrictEqual(facts.filter(projection.wants).map(({ position }) => position), [1n, 3n])
})

it.effect("a projection applies events, and refuses the first fact that does not decode before it applies any", () =>
  Effect.gen(function*() {
    const { applied, projection } = recording()
    yield* noDatabase(projection.apply([fact(1n), fact(3n)]))
    const refused = yield* Effect.flip(noDatabase(projection.apply([fact(4n), fact(5n, { data: { by: "two" } })])))
    assert.deepStrictEqual(applied, [1, 3])
    assert.isTrue(refused instanceof EventDefinition.EventDecodeError && refused.position === 5n)
  }))

it("a key is the tenant and the stream, the stream's id alone, or what an event says", () => {
  const keyOf = (key: ProjectionKey.ProjectionKey<{ readonly by: number }> | undefined) =>
    Result.getOrThrow(
      Projection.describe({ name: "keyed", events: Counters, categories: ["counter"], key }).key.of(fact(7n))
    )
  assert.deepStrictEqual(keyOf(undefined), ["default", "counter-1"])
  assert.deepStrictEqual(keyOf(ProjectionKey.streamId("counter_id")), ["default", "1"])
  assert.deepStrictEqual(
    keyOf(
      ProjectionKey.make({
        columns: ["parity"],
        of: ({ by }: { readonly by: number }) => [by % 2 === 0 ? "even" : "odd"]
      })
    ),
    ["odd"]
  )
  assert.strictEqual(ProjectionKey.format(["a/b", "c%"]), "a%2Fb/c%25")
})

it("the schemas of generations are readable, short enough, and different where anything differs", () => {
  const nameOf = (options: { store?: string; name?: string; schema?: string }) =>
    GenerationSchema.nameOf({ schema: "strata", store: "default", name: "messages", number: 3, ...options })
  assert.strictEqual(nameOf({}), "strata_messages_3")
  assert.strictEqual(nameOf({ name: "response-times" }), "strata_response_times_3")
  const long = "a".repeat(100)
  const names = [
    nameOf({ name: "response_times" }),
    nameOf({ name: "Response times" }),
    nameOf({ store: "other" }),
    nameOf({ name: long }),
    nameOf({ name: `${long}b` }),
    nameOf({ name: "é".repeat(60) })
  ]
  assert.strictEqual(new Set(names).size, names.length)
  for (const name of names) assert.isAtMost(new TextEncoder().encode(name).length, 63)
})
