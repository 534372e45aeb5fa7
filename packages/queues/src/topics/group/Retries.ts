/**
 * What becomes of messages of a group that failed: they wait in a queue of the group until they are done or dead, and those of their keys
 * behind them, while the partition goes on with the others.
 *
 * **Details**
 *
 * The queue is one like any other (see `queueOf`): its retry policy says when a message is tried again and when it is given up, its keys
 * keep the order, its dead letters are those of the group, and what is reprocessed of them comes back to the handler. That a message was
 * put aside commits with the position of its partition.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import type { Dead, Retried } from "../../consuming/Claims.ts"
import type { Message } from "../../Message.ts"
import * as Queue from "../../Queue.ts"
import type * as QueueSettings from "../../QueueSettings.ts"
import type { TopicMessage } from "../Topic.ts"
import type { StoredMessage } from "../TopicLog.ts"

/**
 * The queue in which messages of a group wait that failed. Its dead letters are those of the group.
 *
 * @category constructors
 * @since 0.1.0
 */
export const queueOf = (group: string, settings?: QueueSettings.Options): Queue.Queue<Schema.Json> =>
  Queue.make({ name: `group:${group}`, payload: Schema.Json, settings })

/**
 * A message to be put aside.
 *
 * @category models
 * @since 0.1.0
 */
export interface Diverted {
  readonly topic: string
  readonly message: StoredMessage
  /** Why: behind another one of its key, to be tried again, or given up. */
  readonly because: { readonly waits: true } | { readonly retried: Retried } | { readonly dead: Dead }
}

/**
 * Puts messages of a group aside.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ rows }: Postgres["Service"], queue: number) => ({
  /** Puts messages aside, in their order. Part of the transaction that moves their partitions. */
  divert: (diverted: ReadonlyArray<Diverted>): Effect.Effect<void, SqlError> => {
    if (diverted.length === 0) return Effect.void
    const failureOf = ({ because }: Diverted) =>
      "retried" in because ? because.retried.failure : "dead" in because ? because.dead.failure : undefined
    const deadOf = ({ because }: Diverted) => "dead" in because ? because.dead : undefined
    return Effect.asVoid(rows(divert, [
      Pg.int(queue),
      Pg.textArray(
        diverted.map(({ because }) => "waits" in because ? "waiting" : "dead" in because ? "dead" : "retried")
      ),
      Pg.textArray(diverted.map(({ message }) => message.key)),
      Pg.textArray(diverted.map(({ message }) => message.type)),
      Pg.textArray(diverted.map(({ message }) => message.tenant)),
      Pg.textArray(diverted.map(({ message }) => message.correlationId)),
      Pg.textArray(diverted.map(({ message }) => message.causationId)),
      Pg.textArray(diverted.map(({ message }) => message.traceparent)),
      Pg.textArray(diverted.map(({ message, topic }) =>
        JSON.stringify({
          ...message.headers,
          [names.topic]: topic,
          [names.position]: String(message.position),
          [names.partition]: message.partition,
          [names.id]: message.id
        })
      )),
      Pg.textArray(diverted.map(({ message }) => JSON.stringify(message.data))),
      Pg.timestamptzArray(diverted.map(({ message }) => message.publishedAt)),
      Pg.doubleArray(
        diverted.map(({ because }) => "retried" in because ? Duration.toSeconds(because.retried.after) : null)
      ),
      Pg.textArray(diverted.map((one) => {
        const failure = failureOf(one)
        return failure === undefined ? null : JSON.stringify(failure)
      })),
      Pg.textArray(diverted.map((one) => deadOf(one)?.reason ?? null)),
      Pg.textArray(diverted.map((one) => deadOf(one)?.fingerprint ?? null))
    ]))
  },

  /** Of some keys, those of which a message is still aside. */
  busy: (keys: ReadonlyArray<string>): Effect.Effect<ReadonlySet<string>, SqlError> =>
    Effect.map(
      rows("select busy_keys($1, $2)", [Pg.int(queue), Pg.textArray(keys)]),
      (found) => new Set(found.map(([key]): string => cast(key)))
    ),

  /** True when nothing is aside. */
  isEmpty: Effect.map(
    rows(
      `select not exists (select from message where queue = $1) and not exists (
        select from message_later where (message).queue = $1
      ) and not exists (select from message_parked where (message).queue = $1)
      and not exists (select from message_lease where queue = $1)`,
      [Pg.int(queue)]
    ),
    ([row]) => row?.[0] === true
  )
})

/**
 * Puts messages of a group aside.
 *
 * @category models
 * @since 0.1.0
 */
export type Retries = ReturnType<typeof make>

/** Headers that tell where a message came from. */
const names = {
  topic: "strata-topic",
  position: "strata-position",
  partition: "strata-partition",
  id: "strata-id"
} as const

const divert = `
  select divert_messages(
    $1, $2, $3, $4, $5, $6, $7, $8, $9::text[]::jsonb[], $10::text[]::json[], $11, $12, $13::text[]::jsonb[], $14, $15
  )`

/**
 * A message that comes back from the queue, as it came from its topic.
 *
 * @category converting
 * @since 0.1.0
 */
export const fromQueue = (message: Message<Schema.Json>): TopicMessage<Schema.Json> => {
  const { [names.topic]: topic, [names.position]: position, [names.partition]: partition, [names.id]: id, ...headers } =
    message.headers
  return {
    topic: String(topic),
    position: BigInt(String(position ?? 0)),
    partition: Number(partition),
    id: String(id),
    payload: message.payload,
    key: message.key,
    type: message.type,
    tenant: message.tenant,
    headers,
    correlationId: message.correlationId ?? String(id),
    causationId: message.causationId,
    traceparent: undefined,
    publishedAt: message.sentAt,
    attempt: message.attempt
  }
}
