/**
 * The same four read models, built by projections of Emmett's consumer: a statement for each fact and table, as its projections
 * are written. Messages are told in the order in which they were sent, so that nothing has to be done for late ones.
 *
 * @since 0.1.0
 */
import { type Event, NO_CONCURRENCY_CHECK } from "@event-driven-io/emmett"
import {
  getPostgreSQLEventStore,
  postgreSQLEventStoreConsumer,
  postgreSQLProjection
} from "@event-driven-io/emmett-postgresql"
import * as ResponseSketch from "@strata/conversations/analytics/ResponseSketch"
import type { EventOf } from "@strata/conversations/domain/ConversationEvent"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Crypto from "node:crypto"
import * as Server from "../event-store/Server.ts"
import * as Loading from "../queues/Loading.ts"
import { BenchmarkError, failure, type Watch } from "../Suite.ts"
import * as Archive from "./Archive.ts"
import { four } from "./StrataModels.ts"

interface Started {
  readonly [field: string]: unknown
  readonly conversationId: string
  readonly context: EventOf<"ConversationStarted">["context"]
  readonly participants: EventOf<"ConversationStarted">["participants"]
  readonly startedAt: string
}

interface Sent {
  readonly [field: string]: unknown
  readonly conversationId: string
  readonly messageId: string
  readonly ordinal: number
  readonly senderId: string
  readonly senderRole: string
  readonly type: string
  readonly content: string
  readonly contentHash: string
  readonly size: number
  readonly sentAt: string
}

type Told = Event<"ConversationStarted", Started> | Event<"MessageSent", Sent>

/** A statement with its parameters. */
type Statement = readonly [text: string, parameters: ReadonlyArray<unknown>]

const tenant = "default"

// ---------------------------------------------------------------------------------------------------------- models

const list = (event: Told): ReadonlyArray<Statement> =>
  event.type === "ConversationStarted"
    ? [[
      `insert into models.conversation (
        tenant, conversation_id, status, context_type, context_id, context_metadata, participant_count, started_at
      )
      values ($1, $2, 'ACTIVE', $3, $4, $5, $6, $7)`,
      [
        tenant,
        event.data.conversationId,
        event.data.context.type,
        event.data.context.id,
        event.data.context.metadata,
        event.data.participants.length,
        event.data.startedAt
      ]
    ]]
    : [[
      `update models.conversation
      set message_count = message_count + 1, last_message_id = $3, last_message_ordinal = $4, last_message_at = $5,
        last_message_sender = $6, last_message_type = $7, last_message_preview = left($8, 200)
      where tenant = $1 and conversation_id = $2`,
      [
        tenant,
        event.data.conversationId,
        event.data.messageId,
        event.data.ordinal,
        event.data.sentAt,
        event.data.senderId,
        event.data.type,
        event.data.content
      ]
    ]]

const messages = (event: Told): ReadonlyArray<Statement> =>
  event.type === "ConversationStarted" ? [] : [[
    `insert into models.conversation_message (
      tenant, conversation_id, message_id, ordinal, sender_id, sender_role, type, content, content_hash, size, sent_at, recorded_at,
      correlation_id, position
    )
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $3, 0)`,
    [
      tenant,
      event.data.conversationId,
      event.data.messageId,
      event.data.ordinal,
      event.data.senderId,
      event.data.senderRole,
      event.data.type,
      event.data.content,
      event.data.contentHash,
      event.data.size,
      event.data.sentAt
    ]
  ]]

const unread = (event: Told): ReadonlyArray<Statement> =>
  event.type === "ConversationStarted"
    ? event.data.participants.map(({ role, userId }) => [
      `insert into models.conversation_participant (tenant, conversation_id, user_id, role, joined_at, joined_ordinal)
      values ($1, $2, $3, $4, $5, 0)`,
      [tenant, event.data.conversationId, userId, role, event.data.startedAt]
    ])
    : [[
      `with source as (
        insert into models.unread_source (tenant, conversation_id, ordinal, sender_id) values ($1, $2, $3, $4)
      )
      update models.conversation_participant set unread_count = unread_count + 1
      where tenant = $1 and conversation_id = $2 and user_id <> $4`,
      [tenant, event.data.conversationId, event.data.ordinal, event.data.senderId]
    ]]

const { bounds } = ResponseSketch.buckets
const gamma = bounds[1]! / bounds[0]!

const responses = (event: Told): ReadonlyArray<Statement> => {
  if (event.type === "ConversationStarted") {
    return [[
      "insert into models.response_context (tenant, conversation_id, context_type) values ($1, $2, $3)",
      [tenant, event.data.conversationId, event.data.context.type]
    ]]
  }
  const { conversationId, messageId, ordinal, senderId, senderRole, sentAt, type } = event.data
  return senderRole === "CUSTOMER"
    ? [[
      `insert into models.response_time (tenant, conversation_id, sent_at, ordinal, context_type, message_type)
      select tenant, conversation_id, $3, $4, context_type, $5 from models.response_context
      where tenant = $1 and conversation_id = $2`,
      [tenant, conversationId, sentAt, ordinal, type]
    ]]
    : [[
      `with source as (
        insert into models.response_source (tenant, conversation_id, sent_at, ordinal, message_id, sender_id)
        values ($1, $2, $3, $4, $5, $6)
      ),
      answered as (
        update models.response_time set responder_id = $6, response_id = $5, responded_at = $3
        where tenant = $1 and conversation_id = $2 and sent_at < $3 and sent_at > $3::timestamptz - interval '24 hours'
          and responded_at is null
        returning context_type, sent_at, (extract(epoch from responded_at - sent_at) * 1000000)::bigint as micros
      ),
      each as (
        select grain, provider, context, date_trunc(grain, sent_at at time zone 'UTC')::date as date, micros from answered
        cross join (values ('day'), ('month')) as g(grain)
        cross join (values (''), ($6)) as p(provider)
        cross join lateral (values (''), (context_type)) as x(context)
      ),
      sums as (
        insert into models.response_sums as t (
          tenant, grain, provider, context_type, date, micros, within5, within15, within60, contributions
        )
        select $1, grain, provider, context, date, sum(micros), count(*) filter (where micros <= 300000000),
          count(*) filter (where micros <= 900000000), count(*) filter (where micros <= 3600000000), count(*)
        from each group by 2, 3, 4, 5
        on conflict (tenant, grain, provider, context_type, date) do update set micros = t.micros + excluded.micros,
          within5 = t.within5 + excluded.within5, within15 = t.within15 + excluded.within15,
          within60 = t.within60 + excluded.within60, contributions = t.contributions + excluded.contributions
      )
      insert into models.response_sums_minutes as t (tenant, grain, provider, context_type, date, bucket, refs)
      select $1, grain, provider, context, date, greatest(0, ceil(ln(greatest(micros, 1) / 1000000.0) / ln(${gamma}::float8))), count(*)
      from each group by 2, 3, 4, 5, 6
      on conflict (tenant, grain, provider, context_type, date, bucket) do update set refs = t.refs + excluded.refs`,
      [tenant, conversationId, sentAt, ordinal, messageId, senderId]
    ]]
}

const models = { list, messages, unread, responses }

// ---------------------------------------------------------------------------------------------------------- builds

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

  const toldOf = (event: ReturnType<typeof Archive.events>[number]): ReadonlyArray<Told> => {
    switch (event._tag) {
      case "ConversationStarted":
        return [{ type: "ConversationStarted", data: { ...event, startedAt: Timestamp.format(event.startedAt) } }]
      case "MessageSent":
        return [{ type: "MessageSent", data: { ...event, sentAt: Timestamp.format(event.sentAt) } }]
      default:
        return []
    }
  }

  const fill = (conversations: number) =>
    Effect.forEach(
      Array.from({ length: conversations }, (_, n) => n),
      (n) =>
        run("append", () =>
          store.appendToStream<Told>(`conversation-c${n}`, Archive.events(n).flatMap(toldOf), {
            expectedStreamVersion: NO_CONCURRENCY_CHECK
          })),
      // One after another: its consumer reads by transaction and then leaves out whatever has a lower position than it has seen.
      { discard: true }
    )

  const makeTables = Effect.gen(function*() {
    const client = yield* Effect.acquireRelease(
      run("tables", () => pool.connect()),
      (client) => Effect.sync(() => client.release(true))
    )
    yield* run("tables", () => client.query("drop schema if exists models cascade"))
    yield* run("tables", () => client.query("create schema models"))
    yield* run("tables", () => client.query("set search_path = models"))
    for (const statement of four.flatMap(({ tables }) => tables)) yield* run("tables", () => client.query(statement))
  }).pipe(Effect.scoped)

  const build = Effect.fnUntraced(function*(conversations: number, watch: Watch) {
    yield* makeTables
    const facts = conversations * Archive.factsEach
    const consumer = postgreSQLEventStoreConsumer({
      connectionString,
      pulling: { batchSize: 1000, pullingFrequencyInMs: 1 }
    })
    const seen = new Map<string, number>()
    for (const [name, statementsOf] of Object.entries(models)) {
      seen.set(name, 0)
      consumer.projector<Told>({
        processorId: `bench-${Crypto.randomUUID()}`,
        projection: postgreSQLProjection<Told>({
          name: `bench-${Crypto.randomUUID()}`,
          canHandle: ["ConversationStarted", "MessageSent"],
          handle: (events, { connection: { client } }) =>
            Effect.runPromiseWith(context)(Effect.forEach(
              events.flatMap(statementsOf),
              ([text, parameters]) => run(name, () => client.query(text, [...parameters])),
              { discard: true }
            ))
              .then(() => {
                seen.set(name, seen.get(name)! + events.length)
              })
        })
      })
    }
    const now = yield* Loading.stopwatch
    const begun = now()
    // A consumer of projections does not end by itself.
    yield* watch(
      Effect.raceFirst(
        run("consumer", () => consumer.start()),
        Effect.repeat(Effect.sleep("5 millis"), { until: () => [...seen.values()].every((each) => each >= facts) })
      )
    ).pipe(Effect.ensuring(Effect.ignore(run("consumer", () => consumer.close()))))
    const millis = now() - begun
    const { rows: [built] } = yield* run(
      "tables",
      () =>
        pool.query<
          { messages: number; counted: number; unread: number; answered: number; summed: number; sketched: number }
        >(
          `select
          (select count(*)::integer from models.conversation_message) as messages,
          (select sum(message_count)::integer from models.conversation) as counted,
          (select sum(unread_count)::integer from models.conversation_participant) as unread,
          (select count(*)::integer from models.response_time where responded_at is not null) as answered,
          (select sum(contributions)::integer from models.response_sums where (grain, provider, context_type) = ('day', '', '')) as summed,
          (select sum(refs)::integer from models.response_sums_minutes where (grain, provider, context_type) = ('day', '', '')) as sketched`
        )
    )
    const messages = conversations * Archive.messagesEach
    if (
      built?.messages !== messages || built.counted !== messages || built.unread !== messages || built.answered === 0 ||
      built.summed !== built.answered || built.sketched !== built.answered
    ) {
      return yield* new BenchmarkError({
        message: `Emmett built of ${messages} messages: ${Object.entries(built ?? {}).join("; ")}`
      })
    }
    return millis
  })

  return { fill, build }
})
