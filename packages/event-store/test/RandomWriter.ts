/**
 * A writer that asks for this and that: what it asks for follows from its seed and from what it has read before.
 */
import { EventStore } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import * as Array from "effect/Array"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type { Asked } from "./Attempt.ts"

// Few streams and seats, so that writers meet.
export const streams = ["counter-1", "counter-2", "meter-1", "meter-2"].map((id) => Fact.StreamId.make(id))
const seats = 2

const chance = (part: number) => Effect.map(Random.next, (n) => n < part)
const below = (end: number) => Random.nextIntBetween(0, end, { halfOpen: true })
/** Seldom a value, mostly none. */
const maybe = <A, E, R>(part: number, value: Effect.Effect<A, E, R>) =>
  Effect.flatMap(chance(part), (yes) => yes ? value : Effect.succeed(null))

/** Every fourth writer asks for another tenant than the rest. */
export const tenantOf = (writer: number): string => writer % 4 === 0 ? "acme" : "default"

/** How many of a hundred questions are appends, and takings of a seat; the others are revisions. */
export const evenly = { appends: 35, takings: 25 }
export const mostlyRevisions = { appends: 10, takings: 5 }

/** The next thing to ask. The writer of the other tenant gives the same ids to what it writes as the one before it. */
export const make = (writer: number, { appends, takings } = evenly) => {
  let count = 0
  const nextId = () => {
    const ids = [writer % 4 === 0 ? writer - 1 : writer, ++count].map((n) => n.toString(16))
    return Fact.EventId.make(`00000000-0000-7000-8${ids[0]!.padStart(3, "0")}-${ids[1]!.padStart(12, "0")}`)
  }
  const asked: Array<Asked> = []

  const append = Effect.gen(function*() {
    const store = yield* EventStore
    const written = yield* Effect.forEach(Array.range(1, 1 + (yield* below(3))), () => Random.choice(streams))
    const expect: Record<string, "any" | "noStream" | "streamExists" | number> = {}
    for (const stream of [...written, yield* Random.choice(streams)]) {
      const version = yield* store.streamVersion(stream)
      if (yield* chance(0.5)) continue
      const versions = [version, version, version, version + 1, "any", "streamExists", "noStream"] as const
      expect[stream] = yield* Random.choice(versions)
    }
    const facts = yield* Effect.forEach(written, (stream) =>
      Effect.gen(function*() {
        const validFrom = yield* maybe(0.6, below(10))
        return {
          eventId: nextId(),
          stream,
          type: "counted",
          n: yield* below(100),
          seat: null,
          validFrom,
          validTo: validFrom === null || (yield* chance(0.5)) ? null : validFrom + 1 + (yield* below(10))
        }
      }))
    return { _tag: "Append", facts, expect, free: null, inTransaction: yield* chance(0.2) } satisfies Asked
  })

  /** A seat that was free when it looked, or that it believes to be. */
  const take = Effect.gen(function*() {
    const store = yield* EventStore
    const seat = yield* below(seats)
    const { knownAt } = yield* store.read({ types: ["seat.*"], metadata: { seat }, limit: 1 })
    const behind = BigInt((yield* maybe(0.3, below(20))) ?? 0)
    const fact = { stream: yield* Random.choice(streams), type: "seat.taken", seat, validFrom: null, validTo: null }
    return {
      _tag: "Append",
      facts: [{ ...fact, eventId: nextId(), n: seat }],
      expect: {},
      free: { seat, after: Fact.Position.make(knownAt > behind ? knownAt - behind : 0n) },
      inTransaction: yield* chance(0.2)
    } satisfies Asked
  })

  const revise = Effect.gen(function*() {
    const store = yield* EventStore
    // Half of the time the first fact of one stream, where all meet in one chain.
    const among = (yield* chance(0.5))
      ? { stream: streams[0], direction: "forwards", limit: 1 } as const
      : { stream: yield* Random.choice(streams), direction: "backwards", limit: 8 } as const
    const { facts } = yield* store.read({ ...among, revisions: "all" })
    const found = facts.length === 0 || (yield* chance(0.03)) ? nextId() : (yield* Random.choice(facts)).eventId
    const chain = yield* store.history(found)
    const last = chain.at(-1)
    const restores = last?.retracted === true && (yield* chance(0.7))
    const retract = restores || (yield* chance(0.3))
    const n = yield* below(100)
    return {
      _tag: "Revision",
      eventId: nextId(),
      revises: restores ? last.eventId : found,
      retract,
      n: retract ? null : n,
      validFrom: retract ? null : yield* maybe(0.3, below(10)),
      validTo: retract ? null : yield* maybe(0.2, below(20)),
      expectedRevision: (yield* chance(0.4)) ? last?.revision ?? 0 : null,
      inTransaction: yield* chance(0.2)
    } satisfies Asked
  })

  /** Something it asked for before, as it was or with other content under its id. */
  const again = Effect.gen(function*() {
    const before = asked[yield* below(asked.length)]!
    const other = yield* chance(0.3)
    if (!other) return before
    return before._tag === "Append"
      ? { ...before, facts: before.facts.map((fact) => ({ ...fact, n: fact.n + 1000 })) }
      : { ...before, retract: false, n: 1000 + count }
  })

  return Effect.gen(function*() {
    if (asked.length > 0 && (yield* chance(0.1))) return yield* again
    const draw = yield* below(100)
    const next = yield* draw < appends ? append : draw < appends + takings ? take : revise
    asked.push(next)
    return next
  })
}
