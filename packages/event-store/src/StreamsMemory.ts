/**
 * The catalog of streams in memory.
 *
 * @since 0.1.0
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { CurrentTenant } from "./CurrentTenant.ts"
import { EventStoreError } from "./EventStore.ts"
import { categoryOf, type EventId, type Fact, type Position, type StreamId } from "./Fact.ts"
import * as PreparedSaying from "./PreparedSaying.ts"
import { type StreamCatalog, StreamClosed, type StreamInfo, type TypeInfo } from "./StreamCatalog.ts"

/**
 * The catalog of one store. `versionOf`, `ids`, `facts` and `find` tell what the log holds, `write` adds to it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: {
  readonly ids: (tenant: string) => Iterable<StreamId>
  readonly versionOf: (tenant: string, stream: StreamId) => number
  readonly facts: (tenant: string) => Iterable<Pick<Fact, "stream" | "type">>
  readonly find: (tenant: string, eventId: EventId) => Fact | undefined
  readonly write: (said: PreparedSaying.PreparedSaying) => Effect.Effect<Position>
  readonly random: SecureRandom.SecureRandom["Service"]
}): StreamCatalog & { readonly closedAs: (tenant: string, stream: StreamId) => StreamClosed["state"] | undefined } => {
  const told = new Map<string, Map<StreamId, Pick<StreamInfo, "state" | "metadata">>>()
  const toldOf = (tenant: string) => {
    const known = told.get(tenant) ?? new Map<StreamId, Pick<StreamInfo, "state" | "metadata">>()
    told.set(tenant, known)
    return known
  }

  const infoOf = (tenant: string, stream: StreamId): StreamInfo => ({
    stream,
    version: options.versionOf(tenant, stream),
    state: toldOf(tenant).get(stream)?.state ?? "open",
    metadata: toldOf(tenant).get(stream)?.metadata ?? {}
  })
  const all = (tenant: string) =>
    [...new Set([...options.ids(tenant), ...toldOf(tenant).keys()])]
      .toSorted(inByteOrder)
      .map((stream) => infoOf(tenant, stream))

  const say = Effect.fnUntraced(function*(stream: StreamId, change: PreparedSaying.Change) {
    const said = yield* Effect.provideService(
      PreparedSaying.prepare(stream, change),
      SecureRandom.SecureRandom,
      options.random
    )
    const before = options.find(said.tenant, said.eventId)
    if (before !== undefined) return yield* PreparedSaying.judge(said, before)
    const known = infoOf(said.tenant, stream)
    if (known.state === "tombstoned") {
      return yield* new EventStoreError({ reason: new StreamClosed({ stream, state: "tombstoned" }) })
    }
    const position = yield* options.write(said)
    toldOf(said.tenant).set(stream, { state: change.state ?? known.state, metadata: change.metadata ?? known.metadata })
    return position
  })

  return {
    get: (stream) =>
      Effect.map(CurrentTenant, (tenant) =>
        options.versionOf(tenant, stream) === 0 && !toldOf(tenant).has(stream)
          ? Option.none()
          : Option.some(infoOf(tenant, stream))),
    list: Effect.fnUntraced(function*(asked = {}) {
      const { after, category, limit, states } = yield* PreparedSaying.listing(asked)
      return all(yield* CurrentTenant)
        .filter((info) =>
          (category === undefined || categoryOf(info.stream) === category) &&
          (after === undefined || inByteOrder(after, info.stream) < 0) &&
          states.includes(info.state)
        )
        .slice(0, limit)
    }),
    categories: Effect.map(CurrentTenant, (tenant) => {
      const counts = new Map<string, { streams: bigint; facts: bigint }>()
      for (const stream of options.ids(tenant)) {
        const category = categoryOf(stream)
        const count = counts.get(category) ?? { streams: 0n, facts: 0n }
        counts.set(category, {
          streams: count.streams + 1n,
          facts: count.facts + BigInt(options.versionOf(tenant, stream))
        })
      }
      return [...counts].map(([category, count]) => ({ category, ...count })).toSorted((a, b) =>
        inByteOrder(a.category, b.category)
      )
    }),
    types: Effect.map(CurrentTenant, (tenant) => {
      const counts = new Map<string, TypeInfo>()
      for (const { stream, type } of options.facts(tenant)) {
        const category = categoryOf(stream)
        const key = `${category}\0${type}`
        counts.set(key, { category, type, facts: (counts.get(key)?.facts ?? 0n) + 1n })
      }
      return [...counts.values()].toSorted((a, b) => inByteOrder(a.category, b.category) || inByteOrder(a.type, b.type))
    }),
    setMetadata: (stream, metadata, saying) => say(stream, { ...saying, metadata }),
    setState: (stream, state, saying) => say(stream, { ...saying, state }),
    closedAs: (tenant, stream) => {
      const { state } = infoOf(tenant, stream)
      return state === "open" ? undefined : state
    }
  }
}

const inByteOrder = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))
