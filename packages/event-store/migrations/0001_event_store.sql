-- The event store: named logs in one serial order, their streams, snapshots and idempotency keys.

-- A log. Its row is the lock that orders appends: positions follow the order in which it is taken.
create table store (
  id integer generated always as identity primary key,
  name text not null unique,
  -- Position of the last fact.
  head bigint not null default 0,
  -- Every later batch is recorded after this: when the last one was, or what a reader was last told about.
  head_at timestamptz not null default '-infinity'
) with (fillfactor = 10);

-- The last version of each stream, so that an append need not look for it in the log, and what is said of the stream.
create table stream (
  store integer not null,
  -- In byte order, in which the streams of a category stand together.
  id text collate "C" not null,
  -- 0 while something is said of a stream that has no facts.
  version integer not null,
  -- Only an open stream takes facts; a tombstoned one never will again.
  state text not null default 'open' check (state in ('open', 'archived', 'tombstoned')),
  metadata jsonb not null default '{}',
  primary key (store, id)
) with (fillfactor = 80);

-- How many streams and facts each category has.
create table category (
  store integer not null,
  name text collate "C" not null,
  streams bigint not null,
  facts bigint not null,
  primary key (store, name)
) with (fillfactor = 50);

-- Facts are only ever inserted. There are no foreign keys on this path: append_facts is the only writer.
create table fact (
  store integer not null,
  position bigint not null,
  stream text not null,
  version integer not null,
  -- Position of the first fact of its chain: its own, unless it is a revision.
  origin bigint not null,
  event_id uuid not null,
  type text not null,
  schema_version integer not null,
  -- json, not jsonb: the stored bytes are those that were given.
  data json not null,
  metadata jsonb not null,
  correlation_id text not null,
  causation_id text,
  tenant text not null,
  actor text,
  traceparent text,
  -- When it holds in the world: [valid_from, valid_to).
  valid_from timestamptz not null,
  valid_to timestamptz not null,
  -- When the store learned it, by the database's clock.
  recorded_at timestamptz not null,
  -- 0 for a first fact; n for the nth revision of the fact that `revises` names.
  revision integer not null default 0,
  revises uuid,
  retracted boolean not null default false,
  reason text,
  primary key (store, position),
  constraint fact_event_id unique (event_id, store),
  constraint fact_version unique (store, stream, version),
  constraint fact_validity check (valid_from < valid_to),
  constraint fact_revision check (
    (revision = 0 and revises is null and not retracted) or
    (revision > 0 and revises is not null and reason is not null and actor is not null)
  )
);

-- Revisions of one fact form one chain without a fork.
-- It begins with the origin, so that no other index can be taken for it when the table is small.
create unique index fact_chain on fact (origin, store, revision) where revision > 0;

-- The answer to a client's request, kept under the client's key.
create table idempotency_key (
  store integer not null,
  tenant text not null,
  key text not null,
  fingerprint text not null,
  answer json not null,
  position bigint not null,
  recorded_at timestamptz not null,
  primary key (store, tenant, key)
);

-- Serves the removal of keys that are past their retention.
create index idempotency_key_recorded_at on idempotency_key (recorded_at);

-- A folded state of a stream; the newest one per shape.
create table snapshot (
  store integer not null,
  stream text not null,
  schema_version integer not null,
  version integer not null,
  position bigint not null,
  state json not null,
  primary key (store, stream, schema_version)
);

-- Writes a batch of appends, each of them whole or not at all, none touching its neighbours.
--
-- A *slice* is what one append says of one stream: the version it expects (-2 any, -1 the stream exists, otherwise
-- exactly this one) and how many facts it brings. Slices come sorted by append, appends are numbered from 1.
-- A fact names its slice and its place in it, from 1. Streams are numbered from 1 in `_streams`.
--
-- Locks the store's row until the transaction ends, so it is to be the transaction's last statement. Every statement
-- in here sees what was committed before the lock was got, which READ COMMITTED grants to each of them.
create function append_facts(
  _store integer,
  _streams text[],
  _slice_append integer[],
  _slice_stream integer[],
  _slice_expected integer[],
  _slice_count integer[],
  _key_append integer[],
  _key_tenant text[],
  _key text[],
  _key_fingerprint text[],
  _key_answer text[],
  -- Number in the batch of the last fact of the key's append.
  _key_last integer[],
  _fact_slice integer[],
  _fact_ordinal integer[],
  _fact_stream text[],
  _event_id uuid[],
  _type text[],
  _schema_version integer[],
  _data text[],
  _metadata text[],
  _correlation_id text[],
  _causation_id text[],
  _tenant text[],
  _actor text[],
  _traceparent text[],
  _valid_from timestamptz[],
  _valid_to timestamptz[],
  -- The condition of an append that is alone in its batch, null otherwise: that no fact of its tenant after this position
  -- matches any of these filters. An append in the same batch would not be seen.
  _condition_after bigint,
  _condition_tenant text,
  _condition_filters jsonb,
  -- Per append: 0 written, 1 a stream is at another version, 2 an event id is taken, 3 its idempotency key is,
  -- 4 a fact matches its condition, 5 a stream is closed.
  out outcomes integer[],
  -- Per append refused for a stream: the slice, and the version its stream is at.
  out conflicts integer[],
  out actuals integer[],
  -- Per append: what to add to a fact's number in the batch to get its position.
  out offsets bigint[],
  -- Per slice: the version of its stream before it.
  out bases integer[],
  -- The position of the first fact that matches the condition.
  out blocker bigint,
  out at timestamptz
) language plpgsql
-- A plan made while the tables are small must also be right when they are large.
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  appends constant integer := _slice_append[cardinality(_slice_append)];
  slices constant integer := cardinality(_slice_append);
  head_before bigint;
  versions integer[];
  versions_before integer[];
  closed boolean[];
  refused integer := 0;
  accepted integer := 0;
  facts integer;
  first integer := 1;
  past integer;
  append integer;
  stream_number integer;
begin
  select head, greatest(clock_timestamp(), head_at + interval '1 microsecond') into head_before, at
  from store where id = _store for no key update;

  outcomes := array_fill(0, array[appends]);
  conflicts := array_fill(0, array[appends]);
  actuals := array_fill(0, array[appends]);
  offsets := array_fill(head_before, array[appends]);
  bases := array_fill(0, array[slices]);

  -- Served by fact_event_id. While the table is small, `store = _store` would let the planner settle for an index that
  -- begins with the store, and keep to it when the table is large: hence `+ 0`.
  for append in
    select distinct _slice_append[f.slice]
    from unnest(_fact_slice, _event_id) as f(slice, event_id)
    where (select true from fact where fact.event_id = f.event_id and fact.store + 0 = _store)
  loop
    outcomes[append] := 2;
  end loop;

  -- Served by the primary key of idempotency_key.
  if cardinality(_key) > 0 then
    for append in
      select k.append
      from unnest(_key_append, _key_tenant, _key) as k(append, tenant, key)
      where outcomes[k.append] = 0
        and (select true from idempotency_key i where i.store = _store and i.tenant = k.tenant and i.key = k.key)
    loop
      outcomes[append] := 3;
    end loop;
  end if;

  -- Served by the primary key of fact: what was recorded since the caller looked.
  if _condition_after is not null and outcomes[1] = 0 then
    select f.position into blocker
    from fact f
    where f.store = _store and f.position > _condition_after and f.tenant = _condition_tenant and exists (
      select from jsonb_to_recordset(_condition_filters) as c(
        type text, stream text, category text, correlation_id text, causation_id text, metadata jsonb
      )
      where (c.type is null or f.type ~ c.type)
        and (c.stream is null or f.stream = c.stream)
        and (c.category is null or split_part(f.stream, '-', 1) = c.category)
        and (c.correlation_id is null or f.correlation_id = c.correlation_id)
        and (c.causation_id is null or f.causation_id = c.causation_id)
        and (c.metadata is null or not exists (
          select from jsonb_each(c.metadata) as m(key, value) where f.metadata -> m.key is distinct from m.value
        ))
    )
    order by f.position
    limit 1;
    if blocker is not null then outcomes[1] := 4; end if;
  end if;

  -- Served by the primary key of stream.
  select array_agg(coalesce(t.version, 0) order by s.number), array_agg(coalesce(t.state <> 'open', false) order by s.number)
  into versions, closed
  from unnest(_streams) with ordinality as s(id, number)
  left join lateral (
    -- `offset 0` keeps this a lookup per stream, whatever the planner believes of the table's size.
    select stream.version, stream.state from stream where stream.store = _store and stream.id = s.id offset 0
  ) as t on true;
  versions_before := versions;

  while first <= slices loop
    append := _slice_append[first];
    facts := 0;
    past := first;
    while past <= slices and _slice_append[past] = append loop
      stream_number := _slice_stream[past];
      facts := facts + _slice_count[past];
      if outcomes[append] = 0 and not (
        _slice_expected[past] = -2
        or _slice_expected[past] = versions[stream_number]
        or (_slice_expected[past] = -1 and versions[stream_number] > 0)
      ) then
        outcomes[append] := 1;
        conflicts[append] := past;
        actuals[append] := versions[stream_number];
      end if;
      if outcomes[append] = 0 and _slice_count[past] > 0 and closed[stream_number] then
        outcomes[append] := 5;
        conflicts[append] := past;
      end if;
      past := past + 1;
    end loop;
    offsets[append] := head_before - refused;
    if outcomes[append] = 0 then
      accepted := accepted + facts;
      for i in first .. past - 1 loop
        stream_number := _slice_stream[i];
        bases[i] := versions[stream_number];
        versions[stream_number] := versions[stream_number] + _slice_count[i];
      end loop;
    else
      refused := refused + facts;
    end if;
    first := past;
  end loop;

  if accepted = 0 then return; end if;

  insert into fact (
    store, position, stream, version, origin, event_id, type, schema_version, data, metadata,
    correlation_id, causation_id, tenant, actor, traceparent, valid_from, valid_to, recorded_at
  )
  select
    _store, offsets[_slice_append[f.slice]] + f.number, f.stream, bases[f.slice] + f.ordinal,
    offsets[_slice_append[f.slice]] + f.number, f.event_id, f.type, f.schema_version, f.data::json, f.metadata::jsonb,
    f.correlation_id, f.causation_id, f.tenant, f.actor, f.traceparent, coalesce(f.valid_from, at), coalesce(f.valid_to, 'infinity'), at
  from unnest(
    _fact_slice, _fact_ordinal, _fact_stream, _event_id, _type, _schema_version, _data, _metadata,
    _correlation_id, _causation_id, _tenant, _actor, _traceparent, _valid_from, _valid_to
  ) with ordinality as f(
    slice, ordinal, stream, event_id, type, schema_version, data, metadata,
    correlation_id, causation_id, tenant, actor, traceparent, valid_from, valid_to, number
  )
  where outcomes[_slice_append[f.slice]] = 0;

  insert into stream (store, id, version)
  select _store, s.id, s.version
  from unnest(_streams, versions, versions_before) as s(id, version, before)
  where s.version > s.before
  on conflict (store, id) do update set version = excluded.version;

  insert into category (store, name, streams, facts)
  select
    _store, split_part(s.id, '-', 1), count(*) filter (where s.before = 0), sum(s.version - s.before)
  from unnest(_streams, versions, versions_before) as s(id, version, before)
  where s.version > s.before
  group by split_part(s.id, '-', 1)
  on conflict (store, name) do update
  set streams = category.streams + excluded.streams, facts = category.facts + excluded.facts;

  if cardinality(_key) > 0 then
    insert into idempotency_key (store, tenant, key, fingerprint, answer, position, recorded_at)
    select _store, k.tenant, k.key, k.fingerprint, k.answer::json, offsets[k.append] + k.last, at
    from unnest(_key_append, _key_tenant, _key, _key_fingerprint, _key_answer, _key_last)
      as k(append, tenant, key, fingerprint, answer, last)
    where outcomes[k.append] = 0;
  end if;

  update store set head = head_before + accepted, head_at = at where id = _store;
end
$$;
