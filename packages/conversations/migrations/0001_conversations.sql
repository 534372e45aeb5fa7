-- Read models of conversations. All of them can be dropped and rebuilt from the log.

-- Filled by the projection conversation-list.
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

-- Filled by the projection unread. Ordinals count a conversation's messages 1, 2, 3 … as they were recorded.
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
  primary key (tenant, conversation_id, user_id)
) with (fillfactor = 80);

-- Serves a participant's conversations.
create index conversation_participant_user on conversation_participant (tenant, user_id, conversation_id);

-- Filled by the projection unread: who sent which message, to count again after somebody has read to the middle.
create table unread_source (
  tenant text not null,
  conversation_id text not null,
  ordinal integer not null,
  sender_id text not null,
  primary key (tenant, conversation_id, ordinal)
);

-- Filled by the projection messages.
create table message (
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
create index message_sent on message (tenant, conversation_id, sent_at, ordinal);

-- Serves figures over a period, without a look at the table.
create index message_period on message (tenant, sent_at) include (conversation_id, sender_id);

-- Filled by the projection response-times: each message of a CUSTOMER, with the first message of a SERVICE_PROVIDER in the
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

-- Filled by the projection response-times: what may be a response to a message that is recorded later.
create table response_source (
  tenant text not null,
  conversation_id text not null,
  sent_at timestamptz not null,
  ordinal integer not null,
  message_id text not null,
  sender_id text not null,
  primary key (tenant, conversation_id, sent_at, ordinal)
);
