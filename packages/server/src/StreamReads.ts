/**
 * What is read of streams over HTTP: which there are, how much they hold, and the states they fold to.
 *
 * @since 0.1.0
 */
import { EventStore } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { Point } from "@strata/event-store/FactQuery"
import * as Fields from "@strata/event-store/Fields"
import type * as StreamCatalog from "@strata/event-store/StreamCatalog"
import { defaultLimit } from "@strata/http-api/Paging"
import { type BadRequest, NotFound, RuleViolated } from "@strata/http-api/Problem"
import type { FoldedState, StoreStats, StreamInfo, StreamList } from "@strata/http-api/StreamsApi"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { PageQuery } from "./EventStoreReads.ts"
import * as Refusals from "./Refusals.ts"
import * as StoredEvents from "./StoredEvents.ts"
import { StreamStates } from "./StreamStates.ts"

/**
 * Which streams are asked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListQuery extends PageQuery {
  readonly category?: string | undefined
  readonly state?: ReadonlyArray<StreamCatalog.StreamState> | undefined
}

/** Events of a stream that are folded at once. */
const maxFolded = 10_000

/** Categories of one answer. */
const maxCategories = 500

/**
 * Makes the reads. Each of them is of the caller's tenant only.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const store = yield* EventStore
  const states = yield* StreamStates
  const own = yield* StoredEvents.make

  const list = Effect.fnUntraced(function*(query: ListQuery): Effect.fn.Return<
    StreamList,
    BadRequest
  > {
    const { category, limit = defaultLimit, state: wanted } = query
    const found: Array<StreamCatalog.StreamInfo> = []
    let after = query.cursor === undefined ? undefined : yield* readCursor(query.cursor)
    let full = true
    // The store's own streams stand together: one page meets them, and the next one begins behind them.
    while (full && found.length <= limit) {
      const page = yield* StoredEvents.answered(
        store.streams.list({ category, states: wanted, after, limit: limit + 1 })
      )
      found.push(...(category === undefined ? page.filter(({ stream }) => !isSystems(stream)) : page))
      full = page.length > limit
      const last = page.at(-1)?.stream
      after = last !== undefined && category === undefined && isSystems(last) ? afterSystems : last
    }
    const streams = found.slice(0, limit)
    const next = found.length > limit ? streams.at(-1)?.stream ?? null : null
    return { streams: streams.map(shown), streamCount: streams.length, nextCursor: next, hasMore: next !== null }
  })

  const info = Effect.fnUntraced(function*(stream: Fact.StreamId) {
    const found = yield* StoredEvents.answered(store.streams.get(stream))
    return Option.isSome(found)
      ? shown(found.value)
      : yield* new NotFound({ detail: `There is no stream ${stream}` })
  })

  /** The store's counts are kept, and the rest of the log is counted: exact now. */
  const stats = Effect.gen(function*() {
    const asOf = yield* Timestamp.now
    const counted = yield* StoredEvents.answered(store.streams.categories)
    const count = (value: bigint) => ({ value: String(value), exact: true, asOf })
    const sum = (of: (category: StreamCatalog.CategoryInfo) => bigint) =>
      counted.reduce((total, category) => total + of(category), 0n)
    const largest = counted.toSorted((a, b) => a.facts < b.facts ? 1 : a.facts > b.facts ? -1 : 0)
    const answer: StoreStats = {
      eventStoreName: store.name,
      events: count(sum(({ facts }) => facts)),
      streams: count(sum(({ streams }) => streams)),
      categories: largest.slice(0, maxCategories).map(({ category, facts, streams }) => ({
        category,
        streams: count(streams),
        events: count(facts)
      })),
      categoryCount: count(BigInt(counted.length))
    }
    return answer
  })

  const state = Effect.fnUntraced(function*(stream: Fact.StreamId, { knownAt, validAt }: Point) {
    const rows = yield* StoredEvents.answered(store.streamVersion(stream))
    if (rows === 0) return yield* new NotFound({ detail: `There are no events in ${stream} there` })
    const category = Fact.categoryOf(stream)
    const folded = states.find(category)
    if (Option.isNone(folded)) {
      return yield* new RuleViolated({
        rule: "NoDecider",
        detail: `No decider is known for the category ${category}, only for: ${states.categories.join(", ")}`
      })
    }
    if (rows > maxFolded) {
      return yield* new RuleViolated({
        rule: "StreamTooLong",
        detail: `${stream} has ${rows} rows; at most ${maxFolded} are folded`
      })
    }
    const head = yield* StoredEvents.answered(store.head)
    const position = knownAt === undefined
      ? head
      : yield* StoredEvents.asked(store.positionAt(knownAt), () => "knownAt")
    const id = stream.slice(category.length + 1)
    const answer: FoldedState = {
      streamId: stream,
      aggregateId: stream,
      category,
      validAt: validAt ?? null,
      ...(yield* own.moment(position, knownAt)),
      state: yield* folded.value.at(id, { validAt, knownAt: { position } }).pipe(
        Effect.provideService(EventStore, store),
        Effect.orDie
      )
    }
    return answer
  })

  return { list, info, stats, state }
})

/**
 * A stream under all its names.
 *
 * @category conversions
 * @since 0.1.0
 */
export const shown = ({ metadata, state, stream, version }: StreamCatalog.StreamInfo): StreamInfo => ({
  streamId: stream,
  aggregateId: stream,
  category: Fact.categoryOf(stream),
  version,
  state,
  metadata
})

const isSystems = (stream: Fact.StreamId): boolean => stream.startsWith("$")

/** Later in byte order than every id that begins with `$`. */
const afterSystems = Fact.StreamId.make("$\u{10ffff}-\u{10ffff}")

/** A stream's id, which the store itself may have made. */
const readCursor = (cursor: string): Effect.Effect<Fact.StreamId, BadRequest> =>
  Fields.isStreamId(cursor)
    ? Effect.succeed(Fact.StreamId.make(cursor, { disableChecks: true }))
    : Effect.fail(Refusals.mistake("query.cursor", "Expected the cursor of a page"))
