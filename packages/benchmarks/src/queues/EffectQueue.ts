/**
 * Effect's own `PersistedQueue` over SQL, on the driver that Strata uses.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PersistedQueue from "effect/persistence/PersistedQueue"
import type * as Redacted from "effect/Redacted"
import { failure } from "../Suite.ts"
import { openBooks, Payload, type QueueSystem } from "./QueueSystem.ts"

/** It claims as many messages as there are takers who wait. */
const takers = 100

/**
 * Opens its table in a database, for the time of the scope. It sends one message by each call.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const context = yield* Layer.build(
    PersistedQueue.layer.pipe(
      Layer.provide(PersistedQueue.layerStoreSql()),
      Layer.provide(PgClient.layer({ url, maxConnections: 32 }))
    )
  ).pipe(Effect.mapError(failure("Opening the persisted queue")))
  const factory = Context.get(context, PersistedQueue.PersistedQueueFactory)
  const queue = yield* factory.make({ name: "noop", schema: Payload })
  const books = yield* openBooks(url, {
    left: "select count(*) from effect_queue where state = 'pending'",
    empty: ["truncate effect_queue"]
  })
  return {
    ...books,
    name: "effect's PersistedQueue",
    url,
    send: (payloads) =>
      Effect.forEach(payloads, (payload) => queue.offer(payload), { concurrency: 32, discard: true }).pipe(
        Effect.mapError(failure("PersistedQueue offer"))
      ),
    work: (handle) =>
      Effect.forEach(
        Array.from({ length: takers }),
        () => Effect.forkScoped(Effect.forever(queue.take((payload) => Effect.sync(() => handle(payload))))),
        { discard: true }
      )
  } satisfies QueueSystem
})
