/**
 * The projection `messages`: every message as it was sent.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Projection from "@strata/projections/Projection"
import * as ProjectionKey from "@strata/projections/ProjectionKey"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import { ConversationEvents } from "../domain/ConversationEvent.ts"
import * as ConversationBatch from "./ConversationBatch.ts"

/**
 * Fills `conversation_message`.
 *
 * @category projections
 * @since 0.1.0
 */
export const Messages: Projection.Projection = Projection.make({
  name: "messages",
  version: 1,
  events: ConversationEvents,
  categories: ["conversation"],
  key: ProjectionKey.streamId("conversation_id"),
  tables: `
    create table conversation_message (
      tenant text not null,
      conversation_id text not null,
      message_id text not null,
      ordinal integer not null,
      sender_id text not null,
      sender_role text not null,
      type text not null,
      content text not null,
      content_hash text not null,
      size integer not null,
      reply_to text,
      metadata jsonb,
      sent_at timestamptz not null,
      recorded_at timestamptz not null,
      correlation_id text not null,
      position bigint not null,
      primary key (tenant, conversation_id, message_id)
    );

    -- Serves pages of messages, in both directions.
    create index conversation_message_sent on conversation_message (tenant, conversation_id, sent_at, ordinal);

    -- Serves figures over a period, without a look at the table.
    create index conversation_message_period on conversation_message (tenant, sent_at) include (conversation_id, sender_id);
  `,
  apply: Effect.fnUntraced(function*(batch) {
    const sql = yield* SqlClient.SqlClient
    const sent = ConversationBatch.messages(batch)
    if (sent.length === 0) return
    // New rows only.
    yield* sql`
      insert into conversation_message (
        tenant, conversation_id, message_id, ordinal, sender_id, sender_role, type, content, content_hash, size,
        reply_to, metadata, sent_at, recorded_at, correlation_id, position
      )
      select * from unnest(
        ${Pg.textArray(sent.map(({ fact }) => fact.tenant))},
        ${Pg.textArray(sent.map(({ conversationId }) => conversationId))},
        ${Pg.textArray(sent.map(({ messageId }) => messageId))},
        ${Pg.intArray(sent.map(({ ordinal }) => ordinal))},
        ${Pg.textArray(sent.map(({ senderId }) => senderId))},
        ${Pg.textArray(sent.map(({ senderRole }) => senderRole))},
        ${Pg.textArray(sent.map(({ type }) => type))},
        ${Pg.textArray(sent.map(({ content }) => content))},
        ${Pg.textArray(sent.map(({ contentHash }) => contentHash))},
        ${Pg.intArray(sent.map(({ size }) => size))},
        ${Pg.textArray(sent.map(({ replyTo }) => replyTo))},
        ${Pg.jsonbArray(sent.map(({ metadata }) => metadata))},
        ${Pg.timestamptzArray(sent.map(({ sentAt }) => sentAt))},
        ${Pg.timestamptzArray(sent.map(({ fact }) => fact.recordedAt))},
        ${Pg.textArray(sent.map(({ fact }) => fact.correlationId))},
        ${Pg.bigintArray(sent.map(({ fact }) => fact.position))}
      )`
  })
})
