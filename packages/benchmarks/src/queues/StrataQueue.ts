/**
 * Strata's queues, through their public layers.
 *
 * @since 0.1.0
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as Queue from "@strata/queues/Queue"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import { migrations } from "@strata/queues/QueuesMigrations"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import { failure } from "../Suite.ts"
import { openBooks, Payload, type QueueSystem } from "./QueueSystem.ts"

const Plain = Queue.make({ name: "noop", payload: Payload })

/** How deep it is has to be looked at by every send. */
const Bounded = Queue.make({ name: "bounded", payload: Payload, settings: { maxDepth: 100_000_000 } })

/** Nothing is ever sent to it. */
const Idle = Queue.make({ name: "idle", payload: Payload })

/**
 * Opens the queues of a database, for the time of the scope. Retries and dead letters are armed: that is how a queue is made.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const ledger = Migrations.layer([migrations]).pipe(Layer.provide(NodeServices.layer))
  const context = yield* Layer.build(
    QueuePull.layer.pipe(
      Layer.provideMerge(Queues.layer),
      Layer.provide(ledger),
      Layer.provideMerge(Postgres.layer({ url, statementTimeout: 0 }))
    )
  ).pipe(Effect.mapError(failure("Opening Strata's queues")))
  const queues = Context.get(context, Queues.Queues)
  const pull = Context.get(context, QueuePull.QueuePull)
  for (const queue of [Plain, Bounded, Idle]) {
    yield* Effect.mapError(queues.declare(queue), failure("Declaring a queue"))
  }
  const books = yield* openBooks(url, {
    left: `select
      (select count(*) from message) + (select count(*) from message_later) + (select count(*) from message_parked)
      + (select coalesce(sum(size), 0) from message_lease)`,
    empty: [
      `truncate message, message_later, message_parked, message_key, message_lease, message_unique, queue_count, queue_delta,
      dead_letter`
    ]
  })

  const sendTo = (queue: typeof Plain): QueueSystem["send"] => (payloads) =>
    queues.send(queue, payloads.map((payload) => ({ payload, priority: payload.priority }))).pipe(
      Effect.asVoid,
      Effect.mapError(failure("Strata send"))
    )

  const workOn = (queue: typeof Plain): QueueSystem["work"] => (handle) =>
    Layer.build(QueueWorker.layer(queue, ({ payload }) => Effect.sync(() => handle(payload)))).pipe(
      Effect.provideContext(context),
      Effect.asVoid,
      Effect.mapError(failure("Strata worker"))
    )

  const system: QueueSystem = { ...books, name: "Strata", url, send: sendTo(Plain), work: workOn(Plain) }
  const bounded: QueueSystem = {
    ...system,
    name: "Strata, with a depth limit",
    send: sendTo(Bounded),
    work: workOn(Bounded)
  }
  return {
    system,
    bounded,
    /** A worker that has nothing to do, which looks after the tables meanwhile. */
    upkeep: workOn(Idle)(() => undefined),
    /** Claims so many messages. Gives how many there were. */
    claim: (limit: number) =>
      Effect.mapBoth(pull.claim(Plain, { limit, lease: "1 hour" }), {
        onSuccess: (deliveries) => deliveries.length,
        onFailure: failure("Strata claim")
      })
  }
})
