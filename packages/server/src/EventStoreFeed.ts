/**
 * The log as Server-Sent Events: what is there after a position, then each event as it is recorded.
 *
 * **Details**
 *
 * A feed is a cursor over the log that is read page by page, and a page is read when the one before has been taken by the
 * client's connection: a slow client holds one page and no more. A database that is away leaves the feed quiet until
 * it is back.
 *
 * @since 0.1.0
 */
import * as Belief from "@strata/event-store/Belief"
import { EventStore } from "@strata/event-store/EventStore"
import type * as Fact from "@strata/event-store/Fact"
import { FeedEvent } from "@strata/http-api/EventStoreApi"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import * as Retrying from "@strata/postgres/Retrying"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Sse from "effect/encoding/Sse"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as EventStoreReads from "./EventStoreReads.ts"
import * as Refusals from "./Refusals.ts"
import { ServerConfig } from "./ServerConfig.ts"
import { Shutdown } from "./Shutdown.ts"
import * as StoredEvents from "./StoredEvents.ts"

/**
 * A feed that is asked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Asked {
  readonly query: EventStoreReads.Filter & { readonly after?: Fact.Position | undefined }
  readonly headers: { readonly "last-event-id"?: Fact.Position | undefined }
}

/** Facts that are read at once. */
const pageSize = 100

/** Characters that are sent at once, unless a single event has more. */
const pieceSize = 65_536

/** How long a database that is away is left alone. */
const pause = Duration.seconds(1)

/**
 * Makes the function that answers with a feed, of the caller's tenant only.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const store = yield* EventStore
  const shutdown = yield* Shutdown
  const { heartbeatInterval } = yield* ServerConfig
  const interval = Option.getOrThrow(Duration.toNanos(heartbeatInterval))

  // A span for every look would fill the trace of the request, which lasts as long as the feed.
  const page = (after: Fact.Position) =>
    store.readLog({ after, limit: pageSize }).pipe(
      // The feed itself asks again.
      Retrying.marked,
      Effect.withTracerEnabled(false),
      Effect.catch((error) =>
        error.reason._tag === "StoreUnavailable" ? Effect.succeed([]).pipe(Pace.after(pause)) : Effect.die(error)
      )
    )

  /** Texts to be sent, for ever. Time that passes while nothing fits ends in a sign of life. */
  const follow = (
    from: { readonly after: Fact.Position; readonly sentAt: bigint },
    fits: (fact: Fact.Fact) => boolean
  ) =>
    Stream.paginate(
      from,
      Effect.fnUntraced(function*({ after, sentAt }) {
        const facts = yield* page(after)
        const last = facts.at(-1)?.position
        if (last === undefined) yield* store.changed(after)
        const seen = last ?? after
        const now = yield* Clock.currentTimeNanos
        const texts = yield* Effect.forEach(facts.filter(fits), textOf)
        if (texts.length === 0 && now - sentAt < interval) return [[], Option.some({ after: seen, sentAt })] as const
        return [
          texts.length === 0 ? [signOfLife(seen)] : piecesOf(texts),
          Option.some({ after: seen, sentAt: now })
        ] as const
      })
    )

  return Effect.fnUntraced(function*({ headers, query }: Asked) {
    const { tenant } = yield* CurrentPrincipal
    const head = yield* StoredEvents.answered(store.head)
    const after = headers["last-event-id"] ?? query.after ?? head
    if (after > head) {
      const place = headers["last-event-id"] === undefined ? "query.after" : "headers.last-event-id"
      return yield* Refusals.mistake(place, `Expected a position of the log, which ends at ${head}`)
    }
    const sentAt = yield* Clock.currentTimeNanos
    const matches = Belief.matches(EventStoreReads.filterOf(query))
    const texts = Stream.make(signOfLife(after)).pipe(
      Stream.concat(follow({ after, sentAt }, (fact) => fact.tenant === tenant && matches(fact))),
      Stream.rechunk(1),
      Stream.interruptWhen(shutdown.begun)
    )
    return HttpServerResponse.stream(Stream.encodeText(texts), {
      contentType: "text/event-stream",
      headers: { "cache-control": "no-store", "x-accel-buffering": "no" }
    })
  })
})

// ----------------------------------------------------------------------------------------------------------- texts

const encode = Schema.encodeEffect(FeedEvent)

const textOf = (fact: Fact.Fact): Effect.Effect<string> =>
  Effect.map(
    Effect.orDie(encode({ id: fact.position, event: "message", data: StoredEvents.shown(fact) })),
    (event) => Sse.encoder.write({ _tag: "Event", ...event })
  )

/** A comment. An id without data is no message, and what a client sends as its last event id all the same. */
const signOfLife = (position: Fact.Position): string => `: heartbeat\nid: ${position}\n\n`

/** Texts put together, so that small events share a write and large ones do not wait for each other. */
const piecesOf = (texts: ReadonlyArray<string>): ReadonlyArray<string> => {
  const pieces: Array<string> = []
  let piece = ""
  for (const text of texts) {
    if (piece.length > 0 && piece.length + text.length > pieceSize) {
      pieces.push(piece)
      piece = ""
    }
    piece += text
  }
  return [...pieces, piece]
}
