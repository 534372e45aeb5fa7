/**
 * Two of the four read models, conversations and messages, built by the projections of Emmett's consumer: a statement for each fact
 * and table, as its projections are written.
 *
 * @since 0.1.0
 */
import { type Event, NO_CONCURRENCY_CHECK } from "@event-driven-io/emmett"
import {
  getPostgreSQLEventStore,
  postgreSQLEventStoreConsumer,
  postgreSQLProjection
} from "@event-driven-io/emmett-postgresql"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Crypto from "node:crypto"
import * as Server from "../event-store/Server.ts"
import * as Loading from "../queues/Loading.ts"
import { BenchmarkError, failure, type Watch } from "../Suite.ts"
import * as Archive from "./Archive.ts"

interface Sent {
  readonly [field: string]: unknown
  readonly conversationId: string
  readonly messageId: string
  readonly senderId: string
  readonly content: string
  readonly sentAt: string
}

type Message = Event<"MessageSent", Sent>

/**
 * A store in a database, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const connectionString = Redacted.value(url)
  const pool = yield* Server.nodePool(url, 32)
  const context = yield* Effect.context()
  const run = <A>(doing: string, body: () => PromiseLike<A>) =>
    Effect.tryPromise({ try: () => Promise.resolve(body()), catch: failure(`Emmett: ${doing}`) })
  yield* run(
    "tables",
    () => getPostgreSQLEventStore(connectionString, { connectionOptions: { pool } }).schema.migrate()
  )
  const store = getPostgreSQLEventStore(connectionString, {
    schema: { autoMigration: "None" },
    connectionOptions: { pool }
  })

  const fill = (conversations: number) =>
    Effect.forEach(
      Array.from({ length: conversations }, (_, n) => n),
      (n) =>
        run("append", () =>
          store.appendToStream<Message>(
            `conversation-c${n}`,
            Archive.events(n).flatMap((event) =>
              event._tag === "MessageSent"
                ? [{ type: "MessageSent" as const, data: { ...event, sentAt: Timestamp.format(event.sentAt) } }]
                : []
            ),
            { expectedStreamVersion: NO_CONCURRENCY_CHECK }
          )),
      // One after another: its consumer reads by transaction and then leaves out whatever has a lower position than it has seen.
      { discard: true }
    )

  const build = Effect.fnUntraced(function*(conversations: number, watch: Watch) {
    yield* run("tables", () => pool.query("drop table if exists message, conversation"))
    yield* run(
      "tables",
      () =>
        pool.query(
          "create table message (conversation_id text, message_id text, sender_id text, content text, sent_at timestamptz, "
            + "primary key (conversation_id, message_id))"
        )
    )
    yield* run(
      "tables",
      () =>
        pool.query(
          "create table conversation (conversation_id text primary key, messages integer, last_at timestamptz)"
        )
    )
    const count = conversations * Archive.messagesEach
    let seen = 0
    const projection = postgreSQLProjection<Message>({
      name: `bench-${Crypto.randomUUID()}`,
      canHandle: ["MessageSent"],
      handle: (events, { connection: { client } }) =>
        Effect.runPromiseWith(context)(Effect.forEach(events, ({ data }) =>
          Effect.andThen(
            run("insert", () =>
              client.query("insert into message values ($1, $2, $3, $4, $5)", [
                data.conversationId,
                data.messageId,
                data.senderId,
                data.content,
                data.sentAt
              ])),
            run("upsert", () =>
              client.query(
                "insert into conversation values ($1, 1, $2) on conflict (conversation_id) do update "
                  + "set messages = conversation.messages + 1, last_at = greatest(conversation.last_at, excluded.last_at)",
                [data.conversationId, data.sentAt]
              ))
          ), { discard: true }))
          .then(() => {
            seen += events.length
          })
    })
    const consumer = postgreSQLEventStoreConsumer({
      connectionString,
      pulling: { batchSize: 1000, pullingFrequencyInMs: 1 }
    })
    consumer.projector<Message>({
      processorId: `bench-${Crypto.randomUUID()}`,
      projection
    })
    const now = yield* Loading.stopwatch
    const begun = now()
    // A consumer of a projection does not end by itself.
    yield* watch(
      Effect.raceFirst(
        run("consumer", () => consumer.start()),
        Effect.repeat(Effect.sleep("5 millis"), { until: () => seen >= count })
      )
    ).pipe(Effect.ensuring(Effect.ignore(run("consumer", () => consumer.close()))))
    const millis = now() - begun
    const { rows } = yield* run(
      "tables",
      () => pool.query<{ messages: number }>("select count(*)::integer as messages from message")
    )
    if (rows[0]?.messages !== count) {
      return yield* new BenchmarkError({ message: `Emmett built ${rows[0]?.messages} of ${count} messages` })
    }
    return millis
  })

  return { fill, build }
})
