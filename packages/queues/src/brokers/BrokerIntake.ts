/**
 * Takes messages of a broker in: what comes is published to the outbox, and from there goes to a topic or a queue like everything else.
 *
 * **Details**
 *
 * How far the broker was read commits with what was published. So each message is published once and in the order of the broker, whatever is
 * killed, and however many processes take in: where two read the same, one of them commits.
 *
 * A body that is not what the destination holds is logged and passed over: it would come again for ever.
 *
 * @since 0.1.0
 */
import { Outbox } from "@strata/outbox/Outbox"
import type { OutboxError } from "@strata/outbox/OutboxError"
import type { Destination, NewMessage } from "@strata/outbox/Publication"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import { QueuePolicies } from "../QueuePolicies.ts"
import { Broker, type BrokerError, type BrokerMessage, type ReadMessage } from "./Broker.ts"

/**
 * What is taken in, and where it goes.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<A, I> {
  /** Names how far it was read: who comes back under it goes on from there. */
  readonly consumer: string
  readonly subject: string
  readonly destination: Destination<A>
  readonly payload: Schema.Codec<A, I>
  /** The key under which messages keep their order. Default: that of a message that was relayed from a topic, otherwise none. */
  readonly key?: ((message: BrokerMessage) => string | undefined) | undefined
  /** Messages that are taken together at most. Default: 100. */
  readonly limit?: number | undefined
}

/**
 * Takes messages in as long as the layer is there. Any number of processes may.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <A, I>(options: Options<A, I>): Layer.Layer<never, never, Broker | Outbox | Postgres> =>
  Layer.effectDiscard(Effect.forkScoped(run(options)))

/**
 * Takes messages in until it is interrupted.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*<A, I>(
  { consumer, destination, key = keyOf, limit = 100, payload, subject }: Options<A, I>
): Effect.fn.Return<never, never, Broker | Outbox | Postgres> {
  const broker = yield* Broker
  const outbox = yield* Outbox
  const { rows, transact } = yield* Postgres
  const { reconnect } = yield* QueuePolicies
  const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.toCodecJson(payload)))

  const publish = Effect.fnUntraced(function*(after: string | null, messages: ReadonlyArray<ReadMessage>) {
    const { position } = messages[messages.length - 1]!
    const moved = yield* rows(move, [Pg.text(consumer), Pg.text(after), Pg.text(position)])
    // Another process has been here, or this one, and did not hear of it.
    if (moved.length === 0) return false
    const wanted: Array<NewMessage<A>> = []
    for (const message of messages) {
      const decoded = decode(message.body)
      if (Option.isSome(decoded)) {
        // A queue gives its messages ids of its own.
        const id = destination.kind === "topic" && uuid.test(message.id) ? message.id : undefined
        wanted.push({ payload: decoded.value, id, key: key(message), ...said(message) })
      } else yield* Effect.logError(`A message of ${message.subject} is not what ${destination.name} holds`, message)
    }
    yield* outbox.publish(destination, wanted)
    return true
  })

  const placeNow = Effect.map(rows(place, [Pg.text(consumer)]), ([row]): string | null => cast(row?.[0] ?? null))

  const from = (after: string | null): Effect.Effect<never, BrokerError | OutboxError | SqlError | TransactionError> =>
    Effect.flatMap(broker.read({ subject, limit, after: after ?? undefined }), (messages) => {
      const last = messages[messages.length - 1]
      if (last === undefined) return from(after)
      return Effect.flatMap(
        transact(publish(after, messages), { idempotent: true }),
        (isOurs) => isOurs ? from(last.position) : Effect.flatMap(placeNow, from)
      )
    })

  return yield* Effect.flatMap(placeNow, from).pipe(
    RetryPolicy.retry({ policy: reconnect, idempotent: true, classify: () => FailureClass.transient }),
    Effect.orDie,
    Effect.withTracerEnabled(false)
  )
})

const place = `
  with made as (insert into broker_position (consumer) values ($1) on conflict do nothing)
  select position from broker_position where consumer = $1`

// Locks the row until the publishing commits.
const move = `
  update broker_position set position = $3, at = clock_timestamp()
  where consumer = $1 and position is not distinct from $2 returning 1`

const keyOf = ({ headers }: BrokerMessage): string | undefined => headers["strata-key"]

/** What a message that was relayed from a topic says of itself. */
const said = ({ headers }: BrokerMessage) => ({
  type: headers["strata-type"],
  tenant: headers["strata-tenant"],
  correlationId: headers["strata-correlation-id"],
  causationId: headers["strata-causation-id"],
  headers: Object.fromEntries(
    Object.entries(headers).filter(([name]) => !name.startsWith("strata-") && name !== "traceparent")
  )
})

const uuid = /^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/i
