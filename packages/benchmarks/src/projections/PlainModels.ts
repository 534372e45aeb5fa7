/**
 * The same tables, filled by plain SQL from the same facts, all at once: what nobody could do bit by bit, and the least that it costs.
 *
 * @since 0.1.0
 */
import * as ResponseSketch from "@strata/conversations/analytics/ResponseSketch"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Server from "../event-store/Server.ts"
import * as Loading from "../queues/Loading.ts"
import { BenchmarkError, failure, type Watch } from "../Suite.ts"
import * as Archive from "./Archive.ts"
import { four } from "./StrataModels.ts"

/**
 * Fills the tables of the four read models in a schema that is removed again, and gives how long it took in milliseconds.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const { sql, transact } = yield* Server.connect({ url, maxConnections: 2, statementTimeout: 0 })
  const facts = sql`strata.fact where type = 'MessageSent'`

  const fill = Effect.gen(function*() {
    yield* sql`
      insert into conversation_message
      select tenant, data ->> 'conversationId', data ->> 'messageId', (data ->> 'ordinal')::integer, data ->> 'senderId',
        data ->> 'senderRole', data ->> 'type', data ->> 'content', data ->> 'contentHash', (data ->> 'size')::integer,
        data ->> 'replyTo', null, (data ->> 'sentAt')::timestamptz, recorded_at, coalesce(correlation_id, event_id::text), position
      from ${facts}`
    yield* sql`
      insert into conversation (
        tenant, conversation_id, status, context_type, context_id, context_metadata, participant_count, message_count,
        last_message_id, last_message_ordinal, last_message_at, last_message_sender, last_message_type, last_message_preview,
        started_at
      )
      select f.tenant, id, 'ACTIVE', data -> 'context' ->> 'type', data -> 'context' ->> 'id',
        (data -> 'context' -> 'metadata')::jsonb, json_array_length(data -> 'participants'), c.count, m.message_id, m.ordinal,
        m.sent_at, m.sender_id, m.type, left(m.content, 200), (data ->> 'startedAt')::timestamptz
      from (select *, data ->> 'conversationId' as id from strata.fact where type = 'ConversationStarted') as f
      join (select tenant, conversation_id, count(*) from conversation_message group by 1, 2) as c
        on c.tenant = f.tenant and c.conversation_id = f.id
      join (
        select distinct on (tenant, conversation_id) * from conversation_message
        order by tenant, conversation_id, sent_at desc, ordinal desc
      ) as m on m.tenant = f.tenant and m.conversation_id = f.id`
    yield* sql`
      insert into unread_source (tenant, conversation_id, ordinal, sender_id)
      select tenant, conversation_id, ordinal, sender_id from conversation_message`
    yield* sql`
      insert into conversation_participant (tenant, conversation_id, user_id, role, joined_at, joined_ordinal, unread_count)
      select f.tenant, f.data ->> 'conversationId', p ->> 'userId', p ->> 'role', (f.data ->> 'startedAt')::timestamptz, 0,
        c.count - coalesce(own.count, 0)
      from strata.fact as f
      cross join json_array_elements(f.data -> 'participants') as p
      join (select tenant, conversation_id, count(*) from unread_source group by 1, 2) as c
        on c.tenant = f.tenant and c.conversation_id = f.data ->> 'conversationId'
      left join (select tenant, conversation_id, sender_id, count(*) from unread_source group by 1, 2, 3) as own
        on own.tenant = c.tenant and own.conversation_id = c.conversation_id and own.sender_id = p ->> 'userId'
      where f.type = 'ConversationStarted'`
    yield* fillResponses
  })

  const fillResponses = Effect.gen(function*() {
    yield* sql`
      insert into response_context (tenant, conversation_id, context_type)
      select tenant, conversation_id, context_type from conversation`
    yield* sql`
      insert into response_source (tenant, conversation_id, sent_at, ordinal, message_id, sender_id)
      select tenant, conversation_id, sent_at, ordinal, message_id, sender_id from conversation_message
      where sender_role = 'SERVICE_PROVIDER'`
    yield* sql`
      insert into response_time (
        tenant, conversation_id, sent_at, ordinal, context_type, message_type, responder_id, response_id, responded_at
      )
      select q.tenant, q.conversation_id, q.sent_at, q.ordinal, c.context_type, q.type, a.sender_id, a.message_id, a.sent_at
      from conversation_message as q
      join response_context as c using (tenant, conversation_id)
      left join lateral (
        select s.sender_id, s.message_id, s.sent_at from response_source as s
        where s.tenant = q.tenant and s.conversation_id = q.conversation_id
          and s.sent_at > q.sent_at and s.sent_at < q.sent_at + interval '24 hours'
        order by s.sent_at, s.ordinal
        limit 1
      ) as a on true
      where q.sender_role = 'CUSTOMER'`
    const each = sql`
      from response_time
      cross join (values ('day'), ('month')) as g(grain)
      cross join lateral (values (''), (responder_id)) as p(provider)
      cross join lateral (values (''), (context_type)) as x(context)
      where responded_at is not null
      group by tenant, grain, provider, context, 5`
    const key = sql`tenant, grain, provider, context, date_trunc(grain, sent_at at time zone 'UTC')::date`
    yield* sql`
      insert into response_sums (
        tenant, grain, provider, context_type, date, micros, within5, within15, within60, contributions
      )
      select ${key}, sum(round(minutes * 60000000)), count(*) filter (where minutes <= 5),
        count(*) filter (where minutes <= 15), count(*) filter (where minutes <= 60), count(*)
      ${each}`
    const { bounds } = ResponseSketch.buckets
    yield* sql`
      insert into response_sums_minutes (tenant, grain, provider, context_type, date, bucket, refs)
      select ${key},
        ${Pg.int(bounds.length)} - width_bucket(-minutes, ${
      Pg.doubleArray(bounds.map((bound) => -bound).toReversed())
    }),
        count(*)
      ${each}, 6`
  })

  return {
    build: (conversations: number, watch: Watch) =>
      Effect.gen(function*() {
        yield* sql`drop schema if exists plain cascade`
        yield* sql`create schema plain`
        const enter = sql`select set_config('search_path', 'plain, public', true)`
        yield* transact(Effect.andThen(
          enter,
          Effect.forEach(four.flatMap(({ tables }) => tables), (statement) => sql.unsafe(statement), { discard: true })
        ))
        const now = yield* Loading.stopwatch
        const begun = now()
        yield* watch(transact(Effect.andThen(enter, fill)))
        const millis = now() - begun
        const [row] = yield* sql<
          { messages: number }
        >`select count(*)::integer as messages from plain.conversation_message`
        if (row!.messages !== conversations * Archive.messagesEach) {
          return yield* new BenchmarkError({ message: `Plain SQL built ${row!.messages} messages` })
        }
        yield* sql`drop schema plain cascade`
        return millis
      }).pipe(Effect.mapError(failure("Plain SQL")))
  }
})
