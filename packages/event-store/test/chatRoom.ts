/** Events that hold something of persons, and what contracts ask of them. */
import * as EventDefinition from "@strata/event-store/EventDefinition"
import type { EventStore } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { Erased } from "@strata/event-store/PersonalData"
import type * as SubjectKeys from "@strata/event-store/SubjectKeys"
import * as Base64 from "effect/encoding/Base64"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

export const Said = EventDefinition.make("Said", {
  version: 2,
  fields: {
    sender: Schema.String,
    room: Schema.String,
    content: Schema.String,
    mood: Schema.optionalKey(Schema.Struct({ word: Schema.String, strength: Schema.Int }))
  },
  upcasts: { 1: ({ text = null, ...data }) => ({ ...data, room: "lobby", content: text }) },
  personal: { subject: (event) => event.sender, fields: ["content", "mood"] }
})
export const Introduced = EventDefinition.make("Introduced", {
  fields: { first: Schema.String, second: Schema.String, nameOfFirst: Schema.String, nameOfSecond: Schema.String },
  personal: [
    { subject: (event) => event.first, fields: ["nameOfFirst"] },
    { subject: (event) => event.second, fields: ["nameOfSecond"] }
  ]
})
export const Closed = EventDefinition.make("Closed", { fields: { room: Schema.String } })
export const events = EventDefinition.set([Said, Introduced, Closed])
export type ChatEvent = EventDefinition.Event<typeof events>

export const lobby = Fact.streamId("room", "lobby")
export const garden = Fact.streamId("room", "garden")
export const id = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`)

export const said = (sender: string, content: string, place: Partial<EventDefinition.EventPlace> = {}): Fact.NewFact =>
  events.encode(Said.make({ sender, room: "lobby", content }), { stream: lobby, ...place })

/** The events that facts hold; those of the system are left out. */
export const decoded = (facts: ReadonlyArray<Fact.Fact>): ReadonlyArray<ChatEvent> =>
  facts.filter((fact) => events.has(fact)).map((fact) => Result.getOrThrow(events.decode(fact)))

/** What was said, as a reader sees it. */
export const contents = (facts: ReadonlyArray<Fact.Fact>): ReadonlyArray<string | Erased["_tag"]> =>
  decoded(facts).flatMap((event) =>
    event._tag === "Said" ? [typeof event.content === "string" ? event.content : event.content._tag] : []
  )

export const masterKey = (id: string, byte = 7): SubjectKeys.MasterKey => ({
  id,
  key: Redacted.make(Base64.encode(new Uint8Array(32).fill(byte)))
})

/** A store and the keys it was opened with. */
export interface ChatStore {
  readonly store: EventStore["Service"]
  readonly keys: SubjectKeys.SubjectKeys["Service"]
}
