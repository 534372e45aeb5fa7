/**
 * What readers ask of a store while others write to it, and what they saw: values that pass between processes.
 */
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { EventStore } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import { day } from "./Attempt.ts"
import { believedAt, type Log } from "./LogModel.ts"

/** `from` was the head before it was asked, `to` after it was answered. */
const Look = Schema.Struct({
  tenant: Schema.String,
  /** What was known there; null for what is known now. */
  known: Schema.NullOr(Fact.Position),
  /** On this day and, unless null, up to that one; null for whenever. */
  valid: Schema.NullOr(Schema.Struct({ from: Schema.Int, to: Schema.NullOr(Schema.Int) })),
  stream: Schema.NullOr(Fact.StreamId),
  from: Fact.Position,
  to: Fact.Position,
  knownAt: Fact.Position,
  seen: Schema.Array(Fact.Position)
})
export type Look = typeof Look.Type

export const LookLine = Schema.fromJsonString(Schema.toCodecJson(Look))

const below = (end: number) => Random.nextIntBetween(0, end, { halfOpen: true })

/** Looks for all that fits, page by page. */
export const look = Effect.fnUntraced(function*(streams: ReadonlyArray<Fact.StreamId>) {
  const store = yield* EventStore
  const tenant = yield* CurrentTenant
  const from = yield* store.head
  const known = (yield* below(2)) === 0 ? null : Fact.Position.make(BigInt(yield* below(Number(from) + 1)))
  const begins = yield* below(24)
  const lasts = yield* below(6)
  const valid = begins > 16 ? null : { from: begins, to: lasts > 3 ? null : begins + 1 + lasts }
  const stream = (yield* below(2)) === 0 ? null : yield* Random.choice(streams)
  const query = {
    knownAt: known === null ? undefined : { position: known },
    validAt: valid === null || valid.to !== null ? undefined : day(valid.from),
    validDuring: valid === null || valid.to === null ? undefined : { from: day(valid.from), to: day(valid.to) },
    stream: stream ?? undefined,
    limit: 40
  }
  let page = yield* store.read(query)
  const facts = [...page.facts]
  while (page.next !== null) {
    page = yield* store.read({ ...query, cursor: page.next })
    facts.push(...page.facts)
  }
  const seen = facts.map(({ position }) => position)
  return { tenant, known, valid, stream, from, to: yield* store.head, knownAt: page.knownAt, seen } satisfies Look
})

/** True when this is what the log tells of the moment that was answered for, and that is the one that was asked for. */
export const isSeen = (log: Log, { from, known, knownAt, seen, stream, tenant, to, valid }: Look): boolean => {
  const isMeant = known === null ? from <= knownAt && knownAt <= to : knownAt === known
  const holds = (fact: Fact.Fact): boolean =>
    valid === null ||
    (valid.to === null ? fact.validFrom <= day(valid.from) : fact.validFrom < day(valid.to)) &&
      fact.validTo > day(valid.from)
  const expected = believedAt(log, tenant, Number(knownAt)).filter((fact) =>
    holds(fact) && (stream === null || fact.stream === stream)
  )
  return isMeant && expected.map(({ position }) => position).join() === seen.join()
}
