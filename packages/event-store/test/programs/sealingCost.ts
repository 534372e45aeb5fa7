/**
 * Prints what a personal field costs this processor: microseconds for each fact with one field of 200 bytes, plain and sealed, and
 * for each fact without such a field in a store with keys and in one without.
 *
 * Run it with `node --conditions=strata:source packages/event-store/test/programs/sealingCost.ts`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { type Append, EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as Fact from "@strata/event-store/Fact"
import * as SubjectKeys from "@strata/event-store/SubjectKeys"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { masterKey } from "../chatRoom.ts"

const rounds = 9
const facts = 20_000

const fields = { sender: Schema.String, content: Schema.String }
const Plain = EventDefinition.make("Plain", { fields })
const Sealed = EventDefinition.make("Sealed", {
  fields,
  personal: { subject: (event) => event.sender, fields: ["content"] }
})
const events = EventDefinition.set([Plain, Sealed])
const content = "x".repeat(200)

/** Microseconds of the processor for each fact, to encode and append it, and to read and decode it. */
const round = Effect.fnUntraced(function*(definition: typeof Plain | typeof Sealed) {
  const store = yield* EventStore
  const stream = Fact.streamId("cost", "1")
  const append = (n: number): Append => ({
    facts: [events.encode(definition.make({ sender: `u${n % 50}`, content }), { stream })]
  })
  const begin = process.cpuUsage()
  for (let n = 0; n < facts; n++) yield* store.append(append(n))
  const written = process.cpuUsage(begin)
  const then = process.cpuUsage()
  for (let after = Fact.beginning; after < facts; after = Fact.Position.make(after + 500n)) {
    for (const fact of yield* store.readLog({ after, limit: 500 })) events.decode(fact)
  }
  const read = process.cpuUsage(then)
  return [written, read].map(({ system, user }) => (system + user) / facts)
})

const median = (values: ReadonlyArray<number>) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0

const bare = EventStoreMemory.layer()
const keyed = EventStoreMemory.layer().pipe(
  Layer.provideMerge(SubjectKeys.layerMemory({ masterKey: masterKey("cost") }))
)
const systems = [
  { name: "plain, no keys", definition: Plain, layer: bare },
  { name: "plain, keys", definition: Plain, layer: keyed },
  { name: "one field sealed", definition: Sealed, layer: keyed }
] as const

Effect.gen(function*() {
  const seen = systems.map(() => ({ append: [] as Array<number>, read: [] as Array<number> }))
  for (let n = 0; n <= rounds; n++) {
    for (const [index, { definition, layer }] of systems.entries()) {
      const [append = 0, read = 0] = yield* Effect.provide(round(definition), Layer.fresh(layer))
      if (n === 0) continue
      seen[index]!.append.push(append)
      seen[index]!.read.push(read)
    }
  }
  for (const [index, { name }] of systems.entries()) {
    const { append, read } = seen[index]!
    const shown = (values: ReadonlyArray<number>) =>
      `${median(values).toFixed(1)} (${Math.min(...values).toFixed(1)}–${Math.max(...values).toFixed(1)})`
    yield* Console.log(`${name.padEnd(18)} append ${shown(append).padEnd(20)} read ${shown(read)}`)
  }
}).pipe(NodeRuntime.runMain)
