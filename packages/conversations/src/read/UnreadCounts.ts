/**
 * The projection `unread`: who takes part in a conversation, what they have read, how many messages they have not, and whether they want to
 * hear of any.
 *
 * **Details**
 *
 * Unread are the messages of others that were recorded after a participant joined and after the last one they have
 * read. Reading follows the order of recording: a message that arrives late is unread, whenever it was sent.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Unnest from "@strata/postgres/Unnest"
import * as Projection from "@strata/projections/Projection"
import * as ProjectionKey from "@strata/projections/ProjectionKey"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import type { Participant } from "../domain/Conversation.ts"
import { type ConversationEvent, ConversationEvents, type EventOf } from "../domain/ConversationEvent.ts"
import * as ConversationBatch from "./ConversationBatch.ts"

/**
 * Fills `conversation_participant` and `unread_source`.
 *
 * **Details**
 *
 * The order of the statements matters. Participants come first, while `unread_source` does not hold the batch's messages,
 * so that its last ordinal is the one before the batch. Read marks come last and count again over all messages.
 *
 * @category projections
 * @since 0.1.0
 */
export const UnreadCounts: Projection.Projection = Projection.make({
  name: "unread",
  version: 1,
  events: ConversationEvents,
  categories: ["conversation"],
  key: ProjectionKey.streamId("conversation_id"),
  tables: `
    -- Ordinals count a conversation's messages 1, 2, 3 … as they were recorded.
    create table conversation_participant (
      tenant text not null,
      conversation_id text not null,
      user_id text not null,
      role text not null,
      joined_at timestamptz not null,
      -- The last message before they joined: what was there before is not unread.
      joined_ordinal integer not null,
      -- The last message they have read.
      read_ordinal integer not null default 0,
      last_read_message_id text,
      last_read_at timestamptz,
      -- Messages of others after both.
      unread_count integer not null default 0,
      -- They want to hear of no message.
      muted boolean not null default false,
      primary key (tenant, conversation_id, user_id)
    ) with (fillfactor = 80);

    -- Serves a participant's conversations.
    create index conversation_participant_user on conversation_participant (tenant, user_id, conversation_id);

    -- Who sent which message, to count again after somebody has read to the middle.
    create table unread_source (
      tenant text not null,
      conversation_id text not null,
      ordinal integer not null,
      sender_id text not null,
      primary key (tenant, conversation_id, ordinal)
    );
  `,
  apply: Effect.fnUntraced(function*(batch) {
    const sql = yield* SqlClient.SqlClient
    const slices = ConversationBatch.slices(batch)
    yield* insertParticipants(sql, slices.flatMap(joinsOf))
    yield* insertMessages(sql, ConversationBatch.messages(batch))
    yield* countMessages(sql, slices.flatMap(arrivalsOf))
    yield* applyReads(sql, slices.flatMap(readsOf))
    yield* applyMutes(sql, slices.flatMap(mutesOf))
  })
})

// ---------------------------------------------------------------------------------------------------- participants

interface Join extends Participant {
  readonly tenant: string
  readonly conversationId: string
  readonly joinedAt: EventOf<"ParticipantJoined">["joinedAt"]
  /** The last message of the batch before they joined; null when there is none. */
  readonly ordinal: number | null
  /** Messages of others in the batch after they joined, when some of its messages came before. */
  readonly unread: number
}

const joinsOf = ({ conversationId, events, tenant }: ConversationBatch.ConversationSlice): ReadonlyArray<Join> => {
  const sent = events.filter(isMessage)
  let ordinal: number | null = null
  return events.flatMap((event): ReadonlyArray<Join> => {
    if (event._tag === "MessageSent") ordinal = event.ordinal
    const before = ordinal
    const join = ({ role, userId }: Participant, joinedAt: Join["joinedAt"]): Join => ({
      tenant,
      conversationId,
      userId,
      role,
      joinedAt,
      ordinal: before,
      unread: before === null
        ? 0
        : sent.filter((message) => message.ordinal > before && message.senderId !== userId).length
    })
    if (event._tag === "ConversationStarted") return event.participants.map((each) => join(each, event.startedAt))
    return event._tag === "ParticipantJoined" ? [join(event, event.joinedAt)] : []
  })
}

// New rows only. The last ordinal is read from the end of the primary key of unread_source.
const insertParticipants = (sql: SqlClient.SqlClient, joins: ReadonlyArray<Join>) =>
  joins.length === 0 ? Effect.void : sql`
    insert into conversation_participant (
      tenant, conversation_id, user_id, role, joined_at, joined_ordinal, unread_count
    )
    select j.tenant, j.conversation_id, j.user_id, j.role, j.joined_at,
      coalesce(j.ordinal, (
        select max(s.ordinal) from unread_source as s
        where s.tenant = j.tenant and s.conversation_id = j.conversation_id
      ), 0),
      j.unread
    from unnest(
      ${Pg.textArray(joins.map(({ tenant }) => tenant))},
      ${Pg.textArray(joins.map(({ conversationId }) => conversationId))},
      ${Pg.textArray(joins.map(({ userId }) => userId))},
      ${Pg.textArray(joins.map(({ role }) => role))},
      ${Pg.timestamptzArray(joins.map(({ joinedAt }) => joinedAt))},
      ${Pg.intArray(joins.map(({ ordinal }) => ordinal))},
      ${Pg.intArray(joins.map(({ unread }) => unread))}
    ) as j(tenant, conversation_id, user_id, role, joined_at, ordinal, unread)`

// -------------------------------------------------------------------------------------------------------- messages

// New rows only.
const insertMessages = (sql: SqlClient.SqlClient, sent: ReturnType<typeof ConversationBatch.messages>) =>
  sent.length === 0 ? Effect.void : sql`
    insert into unread_source (tenant, conversation_id, ordinal, sender_id)
    select * from unnest(
      ${Pg.textArray(sent.map(({ fact }) => fact.tenant))},
      ${Pg.textArray(sent.map(({ conversationId }) => conversationId))},
      ${Pg.intArray(sent.map(({ ordinal }) => ordinal))},
      ${Pg.textArray(sent.map(({ senderId }) => senderId))}
    )`

/** The messages that a batch brings to a conversation: all of them, and each sender's own. */
interface Arrival {
  readonly tenant: string
  readonly conversationId: string
  readonly first: number
  readonly total: number
  readonly own: ReadonlyMap<string, number>
}

const arrivalsOf = (
  { conversationId, events, tenant }: ConversationBatch.ConversationSlice
): ReadonlyArray<Arrival> => {
  const sent = events.filter(isMessage)
  const [first] = sent
  if (first === undefined) return []
  const own = new Map<string, number>()
  for (const { senderId } of sent) own.set(senderId, (own.get(senderId) ?? 0) + 1)
  return [{ tenant, conversationId, first: first.ordinal, total: sent.length, own }]
}

// Rows by the first two columns of the primary key: those who joined before the batch's first message.
const countMessages = (sql: SqlClient.SqlClient, arrivals: ReadonlyArray<Arrival>) => {
  const own = arrivals.flatMap(({ conversationId, own, tenant }) =>
    [...own].map(([senderId, count]) => ({ tenant, conversationId, senderId, count }))
  )
  return arrivals.length === 0 ? Effect.void : sql`
    update conversation_participant as p
    set unread_count = p.unread_count + d.total - d.own
    from (
      select b.tenant, b.conversation_id, b.user_id, a.total, coalesce(o.count, 0) as own
      from ${
    Unnest.rows(sql, {
      tenant: Pg.textArray(arrivals.map(({ tenant }) => tenant)),
      conversation_id: Pg.textArray(arrivals.map(({ conversationId }) => conversationId)),
      first: Pg.intArray(arrivals.map(({ first }) => first)),
      total: Pg.intArray(arrivals.map(({ total }) => total))
    })
  } as a
      join conversation_participant as b
        on b.tenant = a.tenant and b.conversation_id = a.conversation_id and b.joined_ordinal < a.first
      left join ${
    Unnest.rows(sql, {
      tenant: Pg.textArray(own.map(({ tenant }) => tenant)),
      conversation_id: Pg.textArray(own.map(({ conversationId }) => conversationId)),
      user_id: Pg.textArray(own.map(({ senderId }) => senderId)),
      count: Pg.intArray(own.map(({ count }) => count))
    })
  } as o
        on o.tenant = b.tenant and o.conversation_id = b.conversation_id and o.user_id = b.user_id
    ) as d
    where p.tenant = d.tenant and p.conversation_id = d.conversation_id and p.user_id = d.user_id
      and d.total > d.own`
}

// ----------------------------------------------------------------------------------------------------------- reads

/** The furthest read mark of each participant. */
const readsOf = ({ events, tenant }: ConversationBatch.ConversationSlice) => {
  const byUser = new Map<string, EventOf<"MessagesRead">>()
  for (const event of events) {
    if (event._tag === "MessagesRead" && event.ordinal > (byUser.get(event.userId)?.ordinal ?? 0)) {
      byUser.set(event.userId, event)
    }
  }
  return [...byUser.values()].map((read) => ({ tenant, ...read }))
}

// Rows by primary key; what is left unread is counted in the primary key of unread_source.
const applyReads = (sql: SqlClient.SqlClient, reads: ReturnType<typeof readsOf>) =>
  reads.length === 0 ? Effect.void : sql`
    update conversation_participant as p
    set
      read_ordinal = r.ordinal,
      last_read_message_id = r.message_id,
      last_read_at = r.read_at,
      unread_count = (
        select count(*) from unread_source as s
        where s.tenant = p.tenant and s.conversation_id = p.conversation_id
          and s.ordinal > greatest(p.joined_ordinal, r.ordinal) and s.sender_id <> p.user_id
      )
    from unnest(
      ${Pg.textArray(reads.map(({ tenant }) => tenant))},
      ${Pg.textArray(reads.map(({ conversationId }) => conversationId))},
      ${Pg.textArray(reads.map(({ userId }) => userId))},
      ${Pg.intArray(reads.map(({ ordinal }) => ordinal))},
      ${Pg.textArray(reads.map(({ upTo }) => upTo))},
      ${Pg.timestamptzArray(reads.map(({ readAt }) => readAt))}
    ) as r(tenant, conversation_id, user_id, ordinal, message_id, read_at)
    where p.tenant = r.tenant and p.conversation_id = r.conversation_id and p.user_id = r.user_id
      and p.read_ordinal < r.ordinal`

const isMessage = (event: ConversationEvent): event is EventOf<"MessageSent"> => event._tag === "MessageSent"

// ---------------------------------------------------------------------------------------------------------- mutes

/** What each participant has said last. */
const mutesOf = ({ conversationId, events, tenant }: ConversationBatch.ConversationSlice) => {
  const byUser = new Map<string, boolean>()
  for (const event of events) {
    if (event._tag === "ParticipantMuted") byUser.set(event.userId, true)
    if (event._tag === "ParticipantUnmuted") byUser.set(event.userId, false)
  }
  return [...byUser].map(([userId, muted]) => ({ tenant, conversationId, userId, muted }))
}

// Rows by primary key.
const applyMutes = (sql: SqlClient.SqlClient, mutes: ReturnType<typeof mutesOf>) =>
  mutes.length === 0 ? Effect.void : sql`
    update conversation_participant as p
    set muted = m.muted
    from unnest(
      ${Pg.textArray(mutes.map(({ tenant }) => tenant))},
      ${Pg.textArray(mutes.map(({ conversationId }) => conversationId))},
      ${Pg.textArray(mutes.map(({ userId }) => userId))},
      ${Pg.booleanArray(mutes.map(({ muted }) => muted))}
    ) as m(tenant, conversation_id, user_id, muted)
    where p.tenant = m.tenant and p.conversation_id = m.conversation_id and p.user_id = m.user_id`
