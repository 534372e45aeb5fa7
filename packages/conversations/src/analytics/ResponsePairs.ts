/**
 * The rows of the projection `response-times`: requests with their first responses. Each change of them tells what pairs
 * came to be and which are no more.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Unnest from "@strata/postgres/Unnest"
import type { Contribution } from "@strata/projections/ContributionsProjection"
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as ConversationBatch from "../read/ConversationBatch.ts"

/**
 * The statements that make the tables.
 *
 * @category constants
 * @since 0.1.0
 */
export const tables: ReadonlyArray<string> = [
  // Each message of a CUSTOMER, with the first message of a SERVICE_PROVIDER in the conversation that was sent strictly
  // later and less than 24 hours later, if there is one.
  `create table response_time (
    tenant text not null,
    conversation_id text not null,
    sent_at timestamptz not null,
    ordinal integer not null,
    context_type text not null,
    message_type text not null,
    responder_id text,
    response_id text,
    responded_at timestamptz,
    minutes double precision generated always as (extract(epoch from responded_at - sent_at) / 60) stored,
    primary key (tenant, conversation_id, sent_at, ordinal)
  )`,
  // Serves response times of a period, without a look at the table.
  `create index response_time_period on response_time (tenant, sent_at)
    include (responder_id, context_type, minutes) where responded_at is not null`,
  // Serves those of one provider.
  `create index response_time_provider on response_time (tenant, responder_id, sent_at)
    include (context_type, minutes) where responded_at is not null`,
  // Serves the fastest and the slowest among those of one bucket.
  `create index response_time_minutes on response_time (tenant, minutes)
    include (sent_at, responder_id, context_type) where responded_at is not null`,
  // What may be a response to a message that is recorded later.
  `create table response_source (
    tenant text not null,
    conversation_id text not null,
    sent_at timestamptz not null,
    ordinal integer not null,
    message_id text not null,
    sender_id text not null,
    primary key (tenant, conversation_id, sent_at, ordinal)
  )`,
  // What each conversation is about.
  `create table response_context (
    tenant text not null,
    conversation_id text not null,
    context_type text not null,
    primary key (tenant, conversation_id)
  )`
]

/**
 * A request and its response, once more (`weight` 1) or once less (-1).
 *
 * @category models
 * @since 0.1.0
 */
export interface PairChange {
  readonly tenant: string
  /** The day and the month of the request, as PostgreSQL writes dates. */
  readonly day: string
  readonly month: string
  readonly contextType: string
  readonly responderId: string
  readonly micros: bigint
  readonly weight: 1 | -1
}

/** What is unknown has a name, so that all of a row's dimensions are told. */
const unknown = "UNKNOWN"

/** The columns of a change, of `tenant`, `sent_at` and `context_type` of one row and a response. */
const pair = (row: string, responder: string, respondedAt: string, weight: 1 | -1) =>
  `${row}.tenant, (${row}.sent_at at time zone 'UTC')::date::text as day,
  date_trunc('month', ${row}.sent_at at time zone 'UTC')::date::text as month,
  ${row}.context_type as "contextType", ${responder} as "responderId",
  (extract(epoch from ${respondedAt} - ${row}.sent_at) * 1000000)::bigint as micros, ${weight} as weight`

/**
 * Adds the messages of a batch. When it has the first of each of its conversations, there are no requests before it to be answered.
 *
 * @category combinators
 * @since 0.1.0
 */
export const add = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  batch: ConversationBatch.ConversationBatch,
  { isFirst = false }: { readonly isFirst?: boolean } = {}
): Effect.fn.Return<ReadonlyArray<PairChange>, SqlError> {
  yield* insertContexts(sql, batch)
  const sent = ConversationBatch.messages(batch)
  const responses = sent.filter(({ senderRole }) => senderRole === "SERVICE_PROVIDER")
  const requests = sent.filter(({ senderRole }) => senderRole === "CUSTOMER")
  const changes: Array<PairChange> = []
  if (responses.length > 0) {
    yield* insertResponses(sql, responses)
    if (!isFirst) changes.push(...yield* improveEarlier(sql, responses))
  }
  if (requests.length > 0) changes.push(...yield* insertRequests(sql, requests))
  return changes
})

/**
 * Removes all rows of conversations, by one statement.
 *
 * @category combinators
 * @since 0.1.0
 */
export const remove = (
  sql: SqlClient.SqlClient,
  keys: ReadonlyArray<ReadonlyArray<string>>
): Effect.Effect<ReadonlyArray<PairChange>, SqlError> => {
  const column = (place: number) => Pg.textArray(keys.map((key) => key[place] ?? ""))
  return sql<PairChange>`
    with k as ${Unnest.rows(sql, { tenant: column(0), conversation_id: column(1) })},
    sources as (delete from response_source where (tenant, conversation_id) in (select * from k)),
    contexts as (delete from response_context where (tenant, conversation_id) in (select * from k)),
    gone as (delete from response_time where (tenant, conversation_id) in (select * from k) returning *)
    select ${sql.literal(pair("gone", "gone.responder_id", "gone.responded_at", -1))}
    from gone where responded_at is not null`
}

/**
 * What a change is to each figure: of all providers and of one, in all contexts and in one, by day and by month.
 *
 * @category conversions
 * @since 0.1.0
 */
export const contributions = (change: PairChange): ReadonlyArray<Contribution> => {
  const minutes = Number(change.micros) / 60_000_000
  const values = {
    micros: change.micros,
    within5: minutes <= 5,
    within15: minutes <= 15,
    within60: minutes <= 60,
    minutes
  }
  return ["", change.responderId].flatMap((provider) =>
    ["", change.contextType].flatMap((context_type) =>
      [["day", change.day] as const, ["month", change.month] as const].map(([grain, date]) => ({
        dimensions: { tenant: change.tenant, grain, provider, context_type, date },
        values,
        weight: change.weight
      }))
    )
  )
}

type Sent = ReturnType<typeof ConversationBatch.messages>

// New rows only.
const insertContexts = (sql: SqlClient.SqlClient, batch: ConversationBatch.ConversationBatch) => {
  const started = batch.flatMap(({ event, fact }) => event._tag === "ConversationStarted" ? [{ ...event, fact }] : [])
  return started.length === 0 ? Effect.void : sql`
    insert into response_context (tenant, conversation_id, context_type)
    select * from unnest(
      ${Pg.textArray(started.map(({ fact }) => fact.tenant))},
      ${Pg.textArray(started.map(({ conversationId }) => conversationId))},
      ${Pg.textArray(started.map(({ context }) => context.type))}
    )`
}

const responseColumns = (responses: Sent) => ({
  tenant: Pg.textArray(responses.map(({ fact }) => fact.tenant)),
  conversationId: Pg.textArray(responses.map(({ conversationId }) => conversationId)),
  sentAt: Pg.timestamptzArray(responses.map(({ sentAt }) => sentAt)),
  ordinal: Pg.intArray(responses.map(({ ordinal }) => ordinal)),
  messageId: Pg.textArray(responses.map(({ messageId }) => messageId)),
  senderId: Pg.textArray(responses.map(({ senderId }) => senderId))
})

// New rows only.
const insertResponses = (sql: SqlClient.SqlClient, responses: Sent) => {
  const column = responseColumns(responses)
  return sql`
    insert into response_source (tenant, conversation_id, sent_at, ordinal, message_id, sender_id)
    select * from unnest(
      ${column.tenant}, ${column.conversationId}, ${column.sentAt}, ${column.ordinal}, ${column.messageId},
      ${column.senderId}
    )`
}

// Earlier requests that one of these answers, or answers sooner than what is known: a range of the primary key for each
// response.
const improveEarlier = (sql: SqlClient.SqlClient, responses: Sent) => {
  const column = responseColumns(responses)
  return sql<PairChange>`
    with best as (
      select distinct on (q.tenant, q.conversation_id, q.sent_at, q.ordinal)
        q.tenant, q.conversation_id, q.sent_at, q.ordinal, q.context_type,
        q.responder_id as old_responder, q.responded_at as old_responded_at,
        a.sent_at as responded_at, a.message_id as response_id, a.sender_id as responder_id
      from unnest(
        ${column.tenant}, ${column.conversationId}, ${column.sentAt}, ${column.ordinal}, ${column.messageId},
        ${column.senderId}
      ) as a(tenant, conversation_id, sent_at, ordinal, message_id, sender_id)
      join response_time as q
        on q.tenant = a.tenant and q.conversation_id = a.conversation_id
        and q.sent_at < a.sent_at and q.sent_at > a.sent_at - interval '24 hours'
        and (q.responded_at is null or q.responded_at > a.sent_at)
      order by q.tenant, q.conversation_id, q.sent_at, q.ordinal, a.sent_at, a.ordinal
    ),
    improved as (
      update response_time as r
      set responded_at = best.responded_at, response_id = best.response_id, responder_id = best.responder_id
      from best
      where r.tenant = best.tenant and r.conversation_id = best.conversation_id
        and r.sent_at = best.sent_at and r.ordinal = best.ordinal
    )
    select ${sql.literal(pair("best", "best.responder_id", "best.responded_at", 1))} from best
    union all
    select ${sql.literal(pair("best", "best.old_responder", "best.old_responded_at", -1))} from best
    where old_responded_at is not null`
}

// New rows; the response of each is the first entry of a range of the primary key of response_source.
const insertRequests = (sql: SqlClient.SqlClient, requests: Sent) =>
  sql<PairChange>`
  with added as (
    insert into response_time (
      tenant, conversation_id, sent_at, ordinal, context_type, message_type, responder_id, response_id, responded_at
    )
    select
      q.tenant, q.conversation_id, q.sent_at, q.ordinal, coalesce(c.context_type, ${unknown}), q.type,
      a.sender_id, a.message_id, a.sent_at
    from unnest(
      ${Pg.textArray(requests.map(({ fact }) => fact.tenant))},
      ${Pg.textArray(requests.map(({ conversationId }) => conversationId))},
      ${Pg.timestamptzArray(requests.map(({ sentAt }) => sentAt))},
      ${Pg.intArray(requests.map(({ ordinal }) => ordinal))},
      ${Pg.textArray(requests.map(({ type }) => type))}
    ) as q(tenant, conversation_id, sent_at, ordinal, type)
    left join response_context as c using (tenant, conversation_id)
    left join lateral (
      select s.sender_id, s.message_id, s.sent_at from response_source as s
      where s.tenant = q.tenant and s.conversation_id = q.conversation_id
        and s.sent_at > q.sent_at and s.sent_at < q.sent_at + interval '24 hours'
      order by s.sent_at, s.ordinal
      limit 1
    ) as a on true
    returning *
  )
  select ${sql.literal(pair("added", "added.responder_id", "added.responded_at", 1))}
  from added where responded_at is not null`
