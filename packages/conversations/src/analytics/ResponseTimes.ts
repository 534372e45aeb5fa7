/**
 * The projection `response-times`: how long customers wait for the first answer.
 *
 * **Details**
 *
 * For each message of a CUSTOMER: the first message of a SERVICE_PROVIDER in the same conversation that was sent strictly
 * later and less than 24 hours later; of several sent at the same time, the one recorded first. Only sent times count, so
 * facts that arrive late give the same result as facts that arrive in order.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Projection from "@strata/projections/Projection"
import * as ProjectionKey from "@strata/projections/ProjectionKey"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import { ConversationEvents } from "../domain/ConversationEvent.ts"
import * as ConversationBatch from "../read/ConversationBatch.ts"

/**
 * Fills `response_time` and `response_source`.
 *
 * @category projections
 * @since 0.1.0
 */
export const ResponseTimes: Projection.Projection = Projection.make({
  name: "response-times",
  version: 1,
  events: ConversationEvents,
  categories: ["conversation"],
  key: ProjectionKey.streamId("conversation_id"),
  tables: `
    -- Each message of a CUSTOMER, with the first message of a SERVICE_PROVIDER in the
    -- conversation that was sent strictly later and less than 24 hours later, if there is one.
    create table response_time (
      tenant text not null,
      conversation_id text not null,
      sent_at timestamptz not null,
      ordinal integer not null,
      responder_id text,
      response_id text,
      responded_at timestamptz,
      minutes double precision generated always as (extract(epoch from responded_at - sent_at) / 60) stored,
      primary key (tenant, conversation_id, sent_at, ordinal)
    );

    -- Serves response times of a period.
    create index response_time_period on response_time (tenant, sent_at) where responded_at is not null;

    -- What may be a response to a message that is recorded later.
    create table response_source (
      tenant text not null,
      conversation_id text not null,
      sent_at timestamptz not null,
      ordinal integer not null,
      message_id text not null,
      sender_id text not null,
      primary key (tenant, conversation_id, sent_at, ordinal)
    );
  `,
  apply: Effect.fnUntraced(function*(batch) {
    const sql = yield* SqlClient.SqlClient
    const sent = ConversationBatch.messages(batch)
    const responses = sent.filter(({ senderRole }) => senderRole === "SERVICE_PROVIDER")
    if (responses.length > 0) {
      yield* insertResponses(sql, responses)
      yield* improveEarlier(sql, responses)
    }
    const requests = sent.filter(({ senderRole }) => senderRole === "CUSTOMER")
    if (requests.length > 0) yield* insertRequests(sql, requests)
  })
})

type Sent = ReturnType<typeof ConversationBatch.messages>

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
  return sql`
    update response_time as r
    set responded_at = best.responded_at, response_id = best.response_id, responder_id = best.responder_id
    from (
      select distinct on (q.tenant, q.conversation_id, q.sent_at, q.ordinal)
        q.tenant, q.conversation_id, q.sent_at, q.ordinal,
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
    ) as best
    where r.tenant = best.tenant and r.conversation_id = best.conversation_id
      and r.sent_at = best.sent_at and r.ordinal = best.ordinal`
}

// New rows; the response of each is the first entry of a range of the primary key of response_source.
const insertRequests = (sql: SqlClient.SqlClient, requests: Sent) =>
  sql`
  insert into response_time (tenant, conversation_id, sent_at, ordinal, responder_id, response_id, responded_at)
  select q.tenant, q.conversation_id, q.sent_at, q.ordinal, a.sender_id, a.message_id, a.sent_at
  from unnest(
    ${Pg.textArray(requests.map(({ fact }) => fact.tenant))},
    ${Pg.textArray(requests.map(({ conversationId }) => conversationId))},
    ${Pg.timestamptzArray(requests.map(({ sentAt }) => sentAt))},
    ${Pg.intArray(requests.map(({ ordinal }) => ordinal))}
  ) as q(tenant, conversation_id, sent_at, ordinal)
  left join lateral (
    select s.sender_id, s.message_id, s.sent_at from response_source as s
    where s.tenant = q.tenant and s.conversation_id = q.conversation_id
      and s.sent_at > q.sent_at and s.sent_at < q.sent_at + interval '24 hours'
    order by s.sent_at, s.ordinal
    limit 1
  ) as a on true`
