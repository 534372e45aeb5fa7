-- Queues: work that is shared by competing consumers.
--
-- A message is a row that is written when it is sent and removed when it is claimed; nothing in between updates it. What is
-- claimed together is one row of message_lease, which holds the messages, and is removed when all of them are settled. So a
-- message that goes well costs one insert, one delete, and its part of a lease.

-- A queue, and what holds for it. Read by every claim, written when somebody changes it.
create table queue (
  id integer generated always as identity primary key,
  name text collate "C" not null unique check (name <> ''),
  -- See QueueSettings.ts: as they were said, and as the functions judge by them.
  settings json not null default '{}',
  rules jsonb not null default '{}',
  paused boolean not null default false,
  -- Changes with every change, so that processes notice.
  version bigint not null default 1,
  -- When what was claimed under its rate limit will have been allowed (GCRA).
  allowed_at timestamptz not null default '-infinity'
);

-- Ids are in the order of sending, but for transactions that run at the same time.
create sequence message_id;

-- A message, wherever it is.
create type queued_message as (
  id bigint,
  sent_at timestamptz,
  -- When the first try began.
  first_at timestamptz,
  queue integer,
  priority smallint,
  -- Times it was claimed.
  attempts smallint,
  -- Times its lease ran out.
  crashes smallint,
  tenant text,
  type text,
  -- Messages of one key are worked on in the order of their ids.
  key text,
  unique_key text,
  correlation_id text,
  causation_id text,
  traceparent text,
  headers jsonb,
  data json,
  bytes bytea,
  -- Where the payload is, when it is too large for a row.
  stored_at text,
  -- What went wrong, the oldest first.
  failures jsonb
);

-- Messages that may be claimed now.
--
-- They are written to one of three tables in turn; see rotate_messages. When all of a table are claimed it is truncated, so no
-- vacuum is needed to get the space back, and a transaction that holds vacuum back does not slow claims down.
-- Slot -1 has the messages whose lease ran out: whatever ended the one who had them may do so again, so each is claimed alone.
create table message (
  id bigint not null default nextval('message_id'),
  sent_at timestamptz not null default now(),
  first_at timestamptz,
  queue integer not null,
  priority smallint not null,
  attempts smallint not null default 0,
  crashes smallint not null default 0,
  slot smallint not null,
  tenant text collate "C" not null,
  type text collate "C" not null,
  key text collate "C",
  unique_key text collate "C",
  correlation_id text,
  causation_id text,
  traceparent text,
  headers jsonb,
  data json,
  bytes bytea,
  stored_at text,
  failures jsonb
) partition by list (slot);

create table message_0 partition of message for values in (0);
create table message_1 partition of message for values in (1);
create table message_2 partition of message for values in (2);
create table message_suspect partition of message for values in (-1);

-- The order of claims.
create index message_order on message (queue, priority desc, id);
-- The order inside a key, whatever the priorities.
create index message_key_order on message (queue, key, id) where key is not null;

-- Which of the tables is written to now.
create table message_slot (
  one boolean primary key default true check (one),
  slot smallint not null
);
insert into message_slot (slot) values (0);

-- Messages for later: delayed ones, those to be tried again, and those that a rate holds back.
create table message_later (
  due timestamptz not null,
  message queued_message not null
);
create index message_later_due on message_later (((message).queue), due);
create index message_later_id on message_later (((message).id));

-- Messages of a key that is taken, until it is their turn.
create table message_parked (
  message queued_message not null
);
create index message_parked_order on message_parked (((message).queue), ((message).key), ((message).id));
create index message_parked_id on message_parked (((message).id));

-- A key that is taken: the messages that have begun and are not settled, whether they run or wait to be tried again.
create table message_key (
  queue integer not null,
  key text collate "C" not null,
  holders bigint[] not null default '{}',
  allowed_at timestamptz not null default '-infinity',
  primary key (queue, key)
);

-- What was claimed together. Whoever shows the token may settle it, until it has run out and was given to others.
create table message_lease (
  token uuid not null,
  queue integer not null,
  until timestamptz not null,
  slot smallint not null,
  size integer not null,
  worker text not null,
  messages queued_message[] not null
) partition by list (slot);

create table message_lease_0 partition of message_lease for values in (0);
create table message_lease_1 partition of message_lease for values in (1);
create table message_lease_2 partition of message_lease for values in (2);
-- Not compressed: it is read once or never.
alter table message_lease_0 alter column messages set storage external;
alter table message_lease_1 alter column messages set storage external;
alter table message_lease_2 alter column messages set storage external;

create index message_lease_token on message_lease (token);
create index message_lease_until on message_lease (until);
create index message_lease_queue on message_lease (queue);

-- Keys that may be there once: while their message is in one of the states they name, or until a time.
create table message_unique (
  queue integer not null,
  key text collate "C" not null,
  id bigint not null,
  states text[] not null,
  until timestamptz,
  primary key (queue, key)
);

-- How many messages of a queue there are, and were. Whoever moves messages writes what changed as a row of its own, so that nobody
-- waits for anybody; fold_queue_counts adds them up.
create table queue_count (
  queue integer primary key,
  ready bigint not null default 0,
  later bigint not null default 0,
  parked bigint not null default 0,
  leased bigint not null default 0,
  dead bigint not null default 0,
  sent bigint not null default 0,
  done bigint not null default 0,
  failed bigint not null default 0
);
create table queue_delta (
  queue integer not null,
  ready integer not null default 0,
  later integer not null default 0,
  parked integer not null default 0,
  leased integer not null default 0,
  dead integer not null default 0,
  sent integer not null default 0,
  done integer not null default 0,
  failed integer not null default 0
);

-- Messages that were given up.
create table dead_letter (
  id bigint primary key,
  queue integer not null,
  died_at timestamptz not null default clock_timestamp(),
  reason text not null,
  -- What its failures have in common: see Fingerprint.ts.
  fingerprint text collate "C" not null,
  error jsonb not null,
  message queued_message not null
);
create index dead_letter_queue on dead_letter (queue, id);
create index dead_letter_fingerprint on dead_letter (queue, fingerprint, id);

-- Messages whose effect a consumer has committed.
create table inbox (
  consumer text collate "C" not null,
  message_id bigint not null,
  at timestamptz not null default clock_timestamp(),
  primary key (consumer, message_id)
);
create index inbox_at on inbox (at);
