/**
 * Handlers of the group `streams`.
 *
 * @since 0.1.0
 */
import type { StreamState } from "@strata/event-store/StreamCatalog"
import { Api } from "@strata/http-api/Api"
import type { ChangeStream } from "@strata/http-api/StreamsApi"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as EventStorePlaces from "./EventStorePlaces.ts"
import type * as Reads from "./Reads.ts"
import * as StreamChanges from "./StreamChanges.ts"
import * as StreamReads from "./StreamReads.ts"

/**
 * The handlers.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = HttpApiBuilder.group(
  Api,
  "streams",
  Effect.fnUntraced(function*(handlers) {
    const { find, ready } = yield* EventStorePlaces.make
    const reads = yield* StreamReads.make
    const changes = yield* StreamChanges.make

    const list = Effect.fnUntraced(function*(
      asked: Reads.Asked & { readonly params: EventStorePlaces.Place; readonly query: StreamReads.ListQuery }
    ) {
      yield* ready(asked)
      return yield* reads.list(asked.query)
    })

    const become = (state: StreamState) =>
      Effect.fnUntraced(function*(
        asked: StreamChanges.Asked<ChangeStream> & { readonly params: EventStorePlaces.Place }
      ) {
        yield* find(asked.params)
        return yield* changes.become(state)(asked)
      })

    return handlers.handleAll({
      aggregates: list,
      list,
      stats: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.stats
      }),
      info: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.info(asked.params.id)
      }),
      state: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.state(asked.params.id, asked.query)
      }),
      describe: Effect.fnUntraced(function*(asked) {
        yield* find(asked.params)
        return yield* changes.describe(asked)
      }),
      archive: become("archived"),
      reopen: become("open"),
      tombstone: become("tombstoned")
    })
  })
)
