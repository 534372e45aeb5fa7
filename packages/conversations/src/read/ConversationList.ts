/**
 * The projection `conversation-list`: each conversation with its last message and its counts.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Unnest from "@strata/postgres/Unnest"
import * as Projection from "@strata/projections/Projection"
import * as ProjectionKey from "@strata/projections/ProjectionKey"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import { ConversationEvents, type EventOf } from "../domain/ConversationEvent.ts"
import { preview } from "../domain/Preview.ts"
import { type ConversationBatch, type ConversationSlice, slices } from "./ConversationBatch.ts"

/**
 * Fills `conversation`.
 *
 * @category projections
 * @since 0.1.0
 */
export const ConversationList: Projection.Projection = Projection.make({
  name: "conversation-list",
  version: 1,
  events: ConversationEvents,
  categories: ["conversation"],
  key: ProjectionKey.streamId("conversation_id"),
  tables: `
    create table conversation (
      tenant text not null,
      conversation_id text not null,
      status text not null,
      context_type text not null,
      context_id text,
      context_metadata jsonb,
      participant_count integer not null,
      message_count integer not null default 0,
      -- The message sent last: by sent time, then by recording.
      last_message_id text,
      last_message_ordinal integer,
      last_message_at timestamptz,
      last_message_sender text,
      last_message_type text,
      last_message_preview text,
      started_at timestamptz not null,
      archived_at timestamptz,
      last_activity_at timestamptz not null generated always as (coalesce(last_message_at, started_at)) stored,
      primary key (tenant, conversation_id)
    );

    -- Serves pages of conversations, last activity first.
    create index conversation_activity on conversation (tenant, last_activity_at desc, conversation_id desc);

    -- Serves the conversations about one thing.
    create index conversation_context on conversation (tenant, context_id) where context_id is not null;
  `,
  apply: Effect.fnUntraced(function*(batch) {
    const sql = yield* SqlClient.SqlClient
    yield* insertStarted(sql, batch)
    yield* applyChanges(sql, slices(batch).map(changeOf).filter((change) => change !== undefined))
  })
})

// New rows only.
const insertStarted = (sql: SqlClient.SqlClient, batch: ConversationBatch) => {
  const started = batch.flatMap(({ event, fact }) => event._tag === "ConversationStarted" ? [{ ...event, fact }] : [])
  return started.length === 0 ? Effect.void : sql`
    insert into conversation (
      tenant, conversation_id, status, context_type, context_id, context_metadata, participant_count, started_at
    )
    select tenant, conversation_id, 'ACTIVE', context_type, context_id, context_metadata, participant_count, started_at
    from unnest(
      ${Pg.textArray(started.map(({ fact }) => fact.tenant))},
      ${Pg.textArray(started.map(({ conversationId }) => conversationId))},
      ${Pg.textArray(started.map(({ context }) => context.type))},
      ${Pg.textArray(started.map(({ context }) => context.id))},
      ${Pg.jsonbArray(started.map(({ context }) => context.metadata))},
      ${Pg.intArray(started.map(({ participants }) => participants.length))},
      ${Pg.timestamptzArray(started.map(({ startedAt }) => startedAt))}
    ) as s(tenant, conversation_id, context_type, context_id, context_metadata, participant_count, started_at)`
}

/** What a batch changes about one conversation, all of its events taken together. */
interface Change {
  readonly tenant: string
  readonly conversationId: string
  joined: number
  sent: number
  last: EventOf<"MessageSent"> | undefined
  archivedAt: Timestamp.Timestamp | null
}

const changeOf = ({ conversationId, events, tenant }: ConversationSlice): Change | undefined => {
  const change: Change = { tenant, conversationId, joined: 0, sent: 0, last: undefined, archivedAt: null }
  for (const event of events) {
    if (event._tag === "ParticipantJoined") change.joined++
    else if (event._tag === "ConversationArchived") change.archivedAt ??= event.archivedAt
    else if (event._tag === "MessageSent") {
      change.sent++
      if (change.last === undefined || event.sentAt >= change.last.sentAt) change.last = event
    }
  }
  return change.joined + change.sent > 0 || change.archivedAt !== null ? change : undefined
}

// Rows by primary key.
const applyChanges = (sql: SqlClient.SqlClient, changes: ReadonlyArray<Change>) =>
  changes.length === 0 ? Effect.void : sql`
    update conversation as c
    set
      participant_count = c.participant_count + d.joined,
      message_count = c.message_count + d.sent,
      status = case when d.archived_at is null then c.status else 'ARCHIVED' end,
      archived_at = coalesce(c.archived_at, d.archived_at),
      last_message_id = case when d.is_last then d.id else c.last_message_id end,
      last_message_ordinal = case when d.is_last then d.ordinal else c.last_message_ordinal end,
      last_message_at = case when d.is_last then d.at else c.last_message_at end,
      last_message_sender = case when d.is_last then d.sender else c.last_message_sender end,
      last_message_type = case when d.is_last then d.type else c.last_message_type end,
      last_message_preview = case when d.is_last then d.preview else c.last_message_preview end
    from (
      select d.*, d.id is not null and (b.last_message_at is null or d.at >= b.last_message_at) as is_last
      from ${
    Unnest.rows(sql, {
      tenant: Pg.textArray(changes.map(({ tenant }) => tenant)),
      conversation_id: Pg.textArray(changes.map(({ conversationId }) => conversationId)),
      joined: Pg.intArray(changes.map(({ joined }) => joined)),
      sent: Pg.intArray(changes.map(({ sent }) => sent)),
      archived_at: Pg.timestamptzArray(changes.map(({ archivedAt }) => archivedAt)),
      id: Pg.textArray(changes.map(({ last }) => last?.messageId ?? null)),
      ordinal: Pg.intArray(changes.map(({ last }) => last?.ordinal ?? null)),
      at: Pg.timestamptzArray(changes.map(({ last }) => last?.sentAt ?? null)),
      sender: Pg.textArray(changes.map(({ last }) => last?.senderId ?? null)),
      type: Pg.textArray(changes.map(({ last }) => last?.type ?? null)),
      preview: Pg.textArray(changes.map(({ last }) => last === undefined ? null : preview(last.content)))
    })
  } as d
      join conversation as b using (tenant, conversation_id)
    ) as d
    where c.tenant = d.tenant and c.conversation_id = d.conversation_id`
