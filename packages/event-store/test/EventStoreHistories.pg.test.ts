import { layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import type { Append, EventStore, ExpectedVersion } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Arbitrary from "effect/Arbitrary"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

const Database = Layer.merge(PostgresTest.layer({ migrations: [migrations] }), SecureRandom.layerWebCrypto)

/** One append of a generated history: few streams, ids and keys, so that they meet. */
const Step = Schema.Struct({
  facts: Schema.Array(Schema.Struct({
    stream: Schema.Literals(["counter-1", "counter-2", "counter-3"]),
    id: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 12 })),
    n: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1 })),
    valid: Schema.NullOr(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 3 })))
  })).check(Schema.isMaxLength(3)),
  expect: Schema.NullOr(Schema.Struct({
    stream: Schema.Literals(["counter-1", "counter-2", "counter-3"]),
    version: Schema.Union([
      Schema.Literals(["any", "noStream", "streamExists"]),
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 4 }))
    ])
  })),
  key: Schema.NullOr(Schema.Literals(["a", "b", "c"]))
})
const History = Schema.Array(Step).check(Schema.isMaxLength(15))

const toAppend = (step: typeof Step.Type): Append => ({
  facts: step.facts.map(({ id, n, stream, valid }): Fact.NewFact => ({
    stream: Fact.StreamId.make(stream),
    type: "Counted",
    data: { n },
    eventId: Fact.EventId.make(`00000000-0000-7000-8000-${`${id}`.padStart(12, "0")}`),
    validFrom: valid === null ? undefined : Timestamp.fromMicros(BigInt(valid))
  })),
  expect: step.expect === null ? {} : { [step.expect.stream]: step.expect.version satisfies ExpectedVersion },
  idempotency: step.key === null ? undefined : { key: step.key, fingerprint: "f", answer: { key: step.key } }
})

/** Runs a history and tells everything that does not hang on the clock. */
const observe = Effect.fnUntraced(function*(store: EventStore["Service"], history: typeof History.Type) {
  const results = yield* Effect.forEach(
    history,
    (step) =>
      Effect.map(Effect.result(store.append(toAppend(step))), (result) =>
        Result.isSuccess(result)
          ? {
            duplicate: result.success.duplicate,
            facts: result.success.facts.map(({ eventId, position, stream, version }) => ({
              eventId,
              position,
              stream,
              version
            }))
          }
          : { ...result.failure.reason })
  )
  const log = (yield* store.readLog({ after: Fact.beginning })).map((fact) => ({
    ...fact,
    traceparent: null,
    recordedAt: null,
    validFrom: fact.validFrom === fact.recordedAt ? null : fact.validFrom
  }))
  return { results, log }
})

layer(Database, { excludeTestServices: true })("generated histories", (it) => {
  let stores = 0
  it.effect.prop(
    "leave the same log and the same answers in memory and in PostgreSQL",
    [Arbitrary.schema(History)],
    ([history]) =>
      Effect.gen(function*() {
        const postgres = yield* EventStorePostgres.make({ name: `history ${++stores}` })
        const memory = yield* EventStoreMemory.make()
        deepStrictEqual(yield* observe(postgres, history), yield* observe(memory, history))
      }).pipe(Effect.scoped),
    { arbitrary: { runs: 150 } }
  )
})
