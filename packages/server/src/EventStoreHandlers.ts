/**
 * Handlers of the group `eventStores`.
 *
 * @since 0.1.0
 */
import { Api } from "@strata/http-api/Api"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as EventStoreAppends from "./EventStoreAppends.ts"
import * as EventStoreFeed from "./EventStoreFeed.ts"
import * as EventStorePlaces from "./EventStorePlaces.ts"
import * as EventStoreReads from "./EventStoreReads.ts"
import * as EventStoreRevisions from "./EventStoreRevisions.ts"

/**
 * The handlers.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = HttpApiBuilder.group(
  Api,
  "eventStores",
  Effect.fnUntraced(function*(handlers) {
    const { find, ready } = yield* EventStorePlaces.make
    const appends = yield* EventStoreAppends.make
    const feed = yield* EventStoreFeed.make
    const reads = yield* EventStoreReads.make
    const revisions = yield* EventStoreRevisions.make

    return handlers.handleAll({
      append: Effect.fnUntraced(function*(asked) {
        yield* find(asked.params)
        return yield* appends.append(asked)
      }),
      appendBatch: Effect.fnUntraced(function*(asked) {
        yield* find(asked.params)
        return yield* appends.appendBatch(asked)
      }),
      correct: Effect.fnUntraced(function*(asked) {
        yield* find(asked.params)
        return yield* revisions.correct(asked)
      }),
      retract: Effect.fnUntraced(function*(asked) {
        yield* find(asked.params)
        return yield* revisions.retract(asked)
      }),
      log: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.log(asked.query)
      }),
      feed: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* feed(asked)
      }),
      event: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.event(asked.params.id)
      }),
      versions: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.versions(asked.params.id, asked.query)
      }),
      eventAt: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.at(asked.params.id, asked.query)
      }),
      stream: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.stream(asked.params.id, asked.query)
      }),
      diff: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.diff(asked.params.id, asked.query)
      })
    })
  })
)
