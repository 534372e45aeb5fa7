/** Facts of a price list, and what contracts ask of them. */
import type { EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { Correction } from "@strata/event-store/Revision"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

export const account = Fact.streamId("account", "a")
export const other = Fact.streamId("account", "b")
export const id = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`)
/** Days since the epoch. */
export const day = (n: number) => Timestamp.fromMicros(BigInt(n) * 86_400_000_000n)

export const price = (n: number, options: Partial<Fact.NewFact> = {}): Fact.NewFact => ({
  stream: account,
  type: "price.set",
  data: { price: n },
  ...options
})
export const correct = (revises: Fact.EventId, changes: Partial<Correction>): Correction => ({
  _tag: "Correction",
  revises,
  reason: "typing error",
  actor: "ada",
  ...changes
})
export const retract = (revises: Fact.EventId) =>
  ({ _tag: "Retraction", revises, reason: "never happened", actor: "ada" }) as const

const Priced = Schema.Struct({ price: Schema.Int })
export const prices = (facts: ReadonlyArray<Fact.Fact>) =>
  facts.map((fact) => Schema.decodeUnknownSync(Priced)(fact.data).price)
export const reason = <A>(effect: Effect.Effect<A, EventStoreError>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)
