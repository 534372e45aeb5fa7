/**
 * Prints what a personal field costs this processor: microseconds for each fact with one field of 200 bytes, to make it ready to be
 * written, and to make of what was read what its reader sees. Plain and sealed take turns.
 *
 * Run it with `node --conditions=strata:source packages/event-store/test/programs/sealingCost.ts`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import * as EventIds from "@strata/event-store/EventIds"
import { EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as Fact from "@strata/event-store/Fact"
import * as PreparedAppend from "@strata/event-store/PreparedAppend"
import * as Sealing from "@strata/event-store/Sealing"
import * as SubjectKeys from "@strata/event-store/SubjectKeys"
import * as Console from "effect/Console"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { masterKey } from "../chatRoom.ts"

const rounds = 15
const facts = 20_000

const fields = { sender: Schema.String, content: Schema.String }
const Plain = EventDefinition.make("Plain", { fields })
const Sealed = EventDefinition.make("Sealed", {
  fields,
  personal: { subject: (event) => event.sender, fields: ["content"] }
})
const events = EventDefinition.set([Plain, Sealed])
const content = "x".repeat(200)
const stream = Fact.streamId("cost", "1")

/** Microseconds of the processor that each fact takes. */
const timed = Effect.fnUntraced(function*(work: Effect.Effect<void, EventStoreError>) {
  const begin = process.cpuUsage()
  yield* work
  const { system, user } = process.cpuUsage(begin)
  return (system + user) / facts
})

const median = (values: ReadonlyArray<number>) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0
const shown = (values: ReadonlyArray<number>) =>
  `${median(values).toFixed(1)} (${Math.min(...values).toFixed(1)}–${Math.max(...values).toFixed(1)})`

const kinds = [Plain, Sealed] as const
const newFact = (definition: (typeof kinds)[number], n: number): Fact.NewFact =>
  events.encode(definition.make({ sender: `u${n % 50}`, content }), { stream })

const program = Effect.gen(function*() {
  const store = yield* EventStore
  const random = yield* SecureRandom.SecureRandom
  const keys = yield* SubjectKeys.SubjectKeys
  const { open, seal } = yield* keys.sealing({ store: "other", told: (_, position) => Effect.succeed(position) })

  const write = Effect.fnUntraced(function*(definition: (typeof kinds)[number], seals: Sealing.Sealing["seal"]) {
    for (let n = 0; n < facts; n++) {
      yield* PreparedAppend.prepare({ facts: [newFact(definition, n)] }, random, seals)
    }
  })
  /** Facts as they are stored. */
  const stored = (definition: (typeof kinds)[number]) =>
    Effect.forEach(Array.from({ length: 500 }), (_, n) =>
      Effect.map(
        PreparedAppend.prepare({ facts: [newFact(definition, n)] }, random, seal),
        ({ facts: [fact] }) => ({ ...template!, type: definition.tag, eventId: fact!.eventId, data: parse(fact!.data) })
      ))
  const read = Effect.fnUntraced(function*(page: ReadonlyArray<Fact.Fact>) {
    for (let n = 0; n < facts; n += page.length) {
      for (const fact of page.some(({ data }) => data !== null) ? yield* open(page) : page) events.decode(fact)
    }
  })

  yield* store.append({ facts: [newFact(Plain, 0)] })
  const [template] = yield* store.readStream(stream)
  const pages = yield* Effect.forEach(kinds, stored)
  const works = [
    { name: "write, plain, no keys", work: write(Plain, Sealing.none.seal) },
    { name: "write, plain", work: write(Plain, seal) },
    { name: "write, one field sealed", work: write(Sealed, seal) },
    { name: "read, plain", work: read(pages[0]!) },
    { name: "read, one field sealed", work: read(pages[1]!) }
  ]
  const seen = works.map((): Array<number> => [])
  for (let n = 0; n < rounds + 2; n++) {
    for (const [index, { work }] of works.entries()) {
      const took = yield* timed(work)
      if (n >= 2) seen[index]!.push(took)
    }
  }
  for (const [index, { name }] of works.entries()) yield* Console.log(`${name.padEnd(24)} ${shown(seen[index]!)}`)
})

const parse = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Json))

program.pipe(
  Effect.provide([
    EventStoreMemory.layer(),
    EventIds.layerRandom,
    SubjectKeys.layerMemory({ masterKey: masterKey("cost") })
  ]),
  NodeRuntime.runMain
)
