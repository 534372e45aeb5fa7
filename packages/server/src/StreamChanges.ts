/**
 * What is said of streams over HTTP: their metadata, and whether they take events.
 *
 * **Details**
 *
 * A request with an idempotency key is told by a fact whose event id stands for the key. The answer is put together from
 * what was recorded up to that fact, so a repeated request gets the first answer whatever was said since.
 *
 * @since 0.1.0
 */
import { EventStore } from "@strata/event-store/EventStore"
import type * as Fact from "@strata/event-store/Fact"
import * as StreamCatalog from "@strata/event-store/StreamCatalog"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import { NotFound } from "@strata/http-api/Problem"
import type { ChangeStream, DescribeStream } from "@strata/http-api/StreamsApi"
import * as Effect from "effect/Effect"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Idempotency from "./Idempotency.ts"
import * as KeyedEventId from "./KeyedEventId.ts"
import * as Refusals from "./Refusals.ts"
import * as StoredEvents from "./StoredEvents.ts"
import * as StreamReads from "./StreamReads.ts"

/**
 * A change that is asked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Asked<Payload> {
  readonly params: { readonly id: Fact.StreamId }
  readonly headers: { readonly "idempotency-key"?: string | undefined }
  readonly payload: Payload
}

/** What is to be said. */
interface Change {
  readonly state?: StreamCatalog.StreamState
  readonly metadata?: Schema.JsonObject
  readonly reason: string
}

/** Facts of one look back into a stream. */
const lookBack = 100

/**
 * Makes the writes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const store = yield* EventStore
  const eventIdOf = yield* KeyedEventId.make

  const say = Effect.fnUntraced(function*(stream: Fact.StreamId, change: Change, eventId?: Fact.EventId) {
    const { metadata, reason, state } = change
    const { subject } = yield* CurrentPrincipal
    const saying = { actor: subject, reason, eventId }
    return yield* Effect.uninterruptible(
      state === undefined
        ? store.streams.setMetadata(stream, metadata ?? {}, saying)
        : store.streams.setState(stream, state, saying)
    )
  })

  const keyed = Effect.fnUntraced(function*(stream: Fact.StreamId, change: Change, key: string) {
    const { tenant } = yield* CurrentPrincipal
    if (Option.isSome(yield* store.idempotencyRecord(key))) return yield* Idempotency.keyReused(key)
    const eventId = yield* eventIdOf(tenant, key)
    return yield* say(stream, change, eventId).pipe(
      Effect.catchIf(({ reason }) => reason._tag === "EventIdTaken", () => Effect.fail(Idempotency.keyReused(key)))
    )
  })

  /** The newest fact of a stream, up to a position, that is looked for. */
  const newest = Effect.fnUntraced(function*<A>(
    stream: Fact.StreamId,
    position: Fact.Position,
    look: (fact: Fact.Fact) => Option.Option<A>
  ) {
    for (let fromVersion: number | undefined;;) {
      const page = yield* StoredEvents.answered(
        store.readStream(stream, { direction: "backwards", fromVersion, limit: lookBack })
      )
      const found = Option.firstSomeOf(page.filter((fact) => fact.position <= position).map(look))
      const last = page.at(-1)
      if (Option.isSome(found) || last === undefined || last.version === 1) return found
      fromVersion = last.version - 1
    }
  })

  /** The stream as it was when a position was recorded. */
  const infoAt = Effect.fnUntraced(function*(stream: Fact.StreamId, position: Fact.Position) {
    const about = StreamCatalog.aboutStream(stream)
    return StreamReads.shown({
      stream,
      version: Option.getOrElse(yield* newest(stream, position, ({ version }) => Option.some(version)), () => 0),
      state: Option.getOrElse(yield* newest(about, position, ({ type }) => stateOf(type)), () => "open" as const),
      metadata: Option.getOrElse(yield* newest(about, position, metadataOf), () => ({}))
    })
  })

  const change = Effect.fnUntraced(function*(asked: Asked<unknown>, change: Change) {
    const stream = asked.params.id
    const key = asked.headers["idempotency-key"]
    yield* StoredEvents.refuseReservedStream(stream)
    if (change.state !== undefined && Option.isNone(yield* StoredEvents.answered(store.streams.get(stream)))) {
      return yield* new NotFound({ detail: `There is no stream ${stream}` })
    }
    const position = yield* Refusals.answer(
      key === undefined ? say(stream, change) : keyed(stream, change, key),
      (field) => `body.${field}`
    )
    return HttpApiSchema.withHeaders({
      body: yield* infoAt(stream, position),
      headers: { "strata-position": position }
    })
  })

  const describe = (asked: Asked<DescribeStream>) => change(asked, asked.payload)
  const become = (state: StreamCatalog.StreamState) => (asked: Asked<ChangeStream>) =>
    change(asked, { ...asked.payload, state })

  return { describe, become }
})

// ------------------------------------------------------------------------------------------------ what facts tell

const decodeState = Schema.decodeUnknownOption(StreamCatalog.StreamState)
const stateOf = (type: string) => decodeState(type.replace(/^\$stream\./, ""))

const decodeTold = Schema.decodeUnknownOption(Schema.Struct({ metadata: Schema.JsonObject }))
const metadataOf = ({ data }: Fact.Fact) => Option.map(decodeTold(data), ({ metadata }) => metadata)
