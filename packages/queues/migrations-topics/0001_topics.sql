-- Topics: what was published, in one order, for every group of consumers that asked.
--
-- A topic is a log that only the relay writes to, so it has no holes and needs no look at who else is writing. What the relay moves
-- together is one row, so that a thousand messages cost little more than one, to write, to read and to remove.

create table topic (
  id integer generated always as identity primary key,
  name text collate "C" not null unique check (name <> ''),
  partitions integer not null default 8 check (partitions between 1 and 1024),
  -- What is kept: seconds, bytes; null for all.
  keep_seconds double precision,
  keep_bytes bigint,
  -- Nothing is published while no live group reads it.
  requires_group boolean not null default false
);

-- Messages first to last of a topic, without holes. The last row of a topic is never removed: it tells where the topic goes on.
create table topic_chunk (
  topic integer not null,
  first bigint not null,
  last bigint not null,
  -- Never before that of the chunk before.
  at timestamptz not null,
  bytes integer not null,
  messages outbox_message[] not null,
  primary key (topic, last)
);
-- Not compressed: it is read by every group, most of the time soon.
alter table topic_chunk alter column messages set storage external;
-- For starts at a time, and for what is too old.
create index topic_chunk_at on topic_chunk (topic, at);

-- Who moves messages out of the outbox. One row.
create table outbox_relay (
  one boolean primary key default true check (one),
  owner uuid,
  label text,
  epoch bigint not null default 0,
  until timestamptz not null default '-infinity'
);
insert into outbox_relay default values;

-- The highest power of two that is not above a positive number.
create function highest_power(_n integer) returns integer language sql immutable parallel safe
return 1 << (length(ltrim(_n::bit(32)::text, '0')) - 1);

-- The partition of a key in a topic of so many, the highest power of two of which is _low: linear hashing, so that each partition that is
-- added takes keys from one other only.
create function partition_of(_hash integer, _partitions integer, _low integer) returns integer
language sql immutable parallel safe
return case when _hash & (2 * _low - 1) < _partitions then _hash & (2 * _low - 1) else _hash & (_low - 1) end;

-- What the relay has taken.
create type outbox_row as (id bigint, kind text, destination text, messages outbox_message[]);

-- Moves messages from the outbox to topics and queues, in the order of publishing. Whoever has the relay goes on having it; who has not
-- takes it over when its lease is over. Tells by what it was: `moved`, `standby` when somebody else has it.
--
-- Holds the relay's row until the commit, so nobody else moves anything meanwhile. What it moved is either there with all of it or
-- not moved, so it need not wait for the disk: who commits something of a message that was read waits for all that came before.
create function relay_outbox(
  _owner uuid, _label text,
  -- Seconds.
  _lease double precision,
  -- Below this id nothing is left, as far as is known.
  _above bigint,
  -- Rows and messages that are moved at most; one row at least.
  _rows integer, _messages integer
) returns table (state text, rows integer, messages integer, above bigint, traceparents text[], channels text[])
language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  relay outbox_relay;
  now constant timestamptz := clock_timestamp();
  ends constant timestamptz := now + _lease * interval '1 second';
  taken outbox_row[];
begin
  select * into relay from outbox_relay r for update skip locked;
  if relay.one is null then
    return query select 'standby', 0, 0, _above, null::text[], null::text[];
    return;
  end if;
  if relay.owner is distinct from _owner then
    -- A lease that ends later than any that begins now is of a clock that was set back.
    if relay.owner is not null and relay.until > now and relay.until <= ends then
      return query select 'standby', 0, 0, _above, null::text[], null::text[];
      return;
    end if;
    update outbox_relay r set owner = _owner, label = _label, epoch = r.epoch + 1, until = ends;
  elsif relay.until < now + (ends - now) / 2 or relay.until > ends then
    update outbox_relay r set until = ends;
  end if;

  with next as materialized (
    select n.part, n.tid, sum(n.count) over (order by n.id) - n.count as before
    from (
      select o.tableoid as part, o.ctid as tid, o.id, o.count from outbox o where o.id > _above order by o.id limit _rows
    ) n
  ), gone as (
    delete from outbox o using next n
    where o.tableoid = n.part and o.ctid = n.tid and n.before < _messages
    returning o.id, o.kind, o.destination, o.messages
  )
  select array_agg(row(g.id, g.kind, g.destination, g.messages)::outbox_row order by g.id) into taken from gone g;
  if taken is null then
    return query select 'moved', 0, 0, _above, null::text[], null::text[];
    return;
  end if;
  perform set_config('synchronous_commit', 'off', true);

  insert into topic (name)
  select distinct r.destination from unnest(taken) r
  where r.kind = 'topic' and not exists (select from topic t where t.name = r.destination)
  on conflict do nothing;
  -- What is many already is a chunk as it is; what is few, with its neighbours.
  with placed as materialized (
    select
      t.id as topic, greatest(now, l.at) as at, r.id, r.messages, cardinality(r.messages) as count,
      coalesce(l.last, 0) + sum(cardinality(r.messages)) over before - cardinality(r.messages) as base,
      sum(case when cardinality(r.messages) >= 64 then 1 else 0 end) over before as many
    from unnest(taken) r
    join topic t on t.name = r.destination and r.kind = 'topic'
    left join lateral (select c.last, c.at from topic_chunk c where c.topic = t.id order by c.last desc limit 1) l on true
    window before as (partition by t.id order by r.id)
  ), as_it_is as (
    insert into topic_chunk (topic, first, last, at, bytes, messages)
    select p.topic, p.base + 1, p.base + p.count, p.at, pg_column_size(p.messages), p.messages from placed p where p.count >= 64
  )
  insert into topic_chunk (topic, first, last, at, bytes, messages)
  select
    g.topic, min(g.position), max(g.position), g.at, sum(g.size), array_agg(g.message order by g.position)
  from (
    select m.*, sum(m.size) over (partition by m.topic, m.many order by m.position) as total
    from (
      select
        p.topic, p.at, p.many, p.base + e.place as position,
        row_number() over (partition by p.topic, p.many order by p.id, e.place) as n,
        row(
          e.id, e.hash, e.key, e.type, e.tenant, e.correlation_id, e.causation_id, e.traceparent, e.headers, e.data,
          e.published_at, e.options
        )::outbox_message as message,
        pg_column_size(e.data) + coalesce(pg_column_size(e.headers), 0) + 200 as size
      from placed p
      cross join lateral unnest(p.messages) with ordinality as e (
        id, hash, key, type, tenant, correlation_id, causation_id, traceparent, headers, data, published_at, options, place
      )
      where p.count < 64
    ) m
  ) g
  group by g.topic, g.many, g.at, (g.n - 1) / 500, div(g.total, 1048576);

  if exists (select from unnest(taken) r where r.kind = 'queue') then
    perform relay_to_queues(taken);
  end if;

  return query
  select
    'moved', cardinality(taken),
    (select sum(cardinality(r.messages))::integer from unnest(taken) r),
    (select max(r.id) from unnest(taken) r),
    (
      select array_agg(distinct m.traceparent)
      from (
        select m.traceparent from unnest(taken) r cross join lateral unnest(r.messages) m
        where m.traceparent is not null limit 16
      ) m
    ),
    array(
      select 'strata_topic_' || t.id from topic t
      where t.name in (select r.destination from unnest(taken) r where r.kind = 'topic')
      union all
      select 'strata_queue_' || q.id from queue q
      where q.name in (select r.destination from unnest(taken) r where r.kind = 'queue')
    );
end
$$;

-- Puts messages into queues, whatever depth those may have: what was published with a transaction is not refused afterwards.
create function relay_to_queues(_taken outbox_row[]) returns void language plpgsql
as $$
declare
  slot constant smallint := message_slot_now();
begin
  insert into queue (name)
  select distinct r.destination from unnest(_taken) r
  where r.kind = 'queue' and not exists (select from queue q where q.name = r.destination)
  on conflict do nothing;
  with messages as materialized (
    select
      q.id as queue, m.*, coalesce((m.options ->> 'priority')::smallint, 5) as priority,
      coalesce((m.options ->> 'delay')::double precision, 0) as delay, r.id as row_id
    from unnest(_taken) r
    join queue q on q.name = r.destination and r.kind = 'queue'
    cross join lateral unnest(r.messages) with ordinality as m (
      id, hash, key, type, tenant, correlation_id, causation_id, traceparent, headers, data, published_at, options, place
    )
  ), ready as (
    insert into message (
      slot, queue, sent_at, priority, tenant, type, key, correlation_id, causation_id, traceparent, headers, data, stored_at
    )
    select
      slot, m.queue, m.published_at, m.priority, m.tenant, m.type, m.key, m.correlation_id, m.causation_id, m.traceparent,
      m.headers, m.data, null
    from messages m
    where m.delay = 0
    order by m.row_id, m.place
    returning queue
  ), later as (
    insert into message_later (due, message)
    select
      m.published_at + m.delay * interval '1 second',
      row(
        nextval('message_id'), m.published_at, null, m.queue, m.priority, 0, 0, m.tenant, m.type, m.key, null,
        m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, null, null, null
      )::queued_message
    from messages m
    where m.delay > 0
    order by m.row_id, m.place
    returning (message).queue
  )
  insert into queue_delta (queue, ready, later, sent)
  select c.queue, sum(c.ready), sum(c.later), count(*)
  from (
    select r.queue, 1 as ready, 0 as later from ready r
    union all
    select l.queue, 0, 1 from later l
  ) c
  group by c.queue;
end
$$;

-- Gives the relay up, so that another process need not wait for the lease to end.
create function leave_relay(_owner uuid) returns void language sql
begin atomic
  update outbox_relay r set owner = null, label = null, until = '-infinity' where r.owner = _owner;
end;

-- Where a topic ends: the position of its last message, 0 where none was published.
create function topic_end(_topic integer) returns bigint language sql stable
return coalesce((select c.last from topic_chunk c where c.topic = _topic order by c.last desc limit 1), 0);

-- The position before the first message that came at a time or later.
create function topic_before(_topic integer, _at timestamptz) returns bigint language sql stable
return coalesce(
  (select c.first - 1 from topic_chunk c where c.topic = _topic and c.at >= _at order by c.at, c.last limit 1),
  topic_end(_topic)
);

-- Messages of some partitions after the positions they are at, in order, and a last row that has no message, but tells where the topic
-- ends: who got fewer than asked for has seen all up to there. _from is the lowest of the positions.
create function read_topic(
  _topic integer, _partitions integer, _wanted integer[], _after bigint[], _from bigint, _limit integer
) returns table (
  "position" bigint, "partition" integer, id uuid, key text, type text, tenant text, correlation_id text, causation_id text,
  traceparent text, headers jsonb, data json, published_at timestamptz
) language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  whole constant boolean := cardinality(_wanted) = _partitions and _after = array_fill(_from, array[_partitions]);
  ending constant bigint := topic_end(_topic);
  low constant integer := highest_power(_partitions);
begin
  if whole then
    return query
    select
      c.first + m.place - 1, partition_of(m.hash, _partitions, low), m.id, m.key, m.type, m.tenant, m.correlation_id,
      m.causation_id, m.traceparent, m.headers, m.data, m.published_at
    from topic_chunk c
    cross join lateral unnest(c.messages) with ordinality as m (
      id, hash, key, type, tenant, correlation_id, causation_id, traceparent, headers, data, published_at, options, place
    )
    where c.topic = _topic and c.last > _from and c.last <= ending and c.first + m.place - 1 > _from
    order by c.last, m.place
    limit _limit;
  else
    return query
    select
      c.first + m.place - 1, w.partition, m.id, m.key, m.type, m.tenant, m.correlation_id, m.causation_id, m.traceparent,
      m.headers, m.data, m.published_at
    from topic_chunk c
    cross join lateral unnest(c.messages) with ordinality as m (
      id, hash, key, type, tenant, correlation_id, causation_id, traceparent, headers, data, published_at, options, place
    )
    join unnest(_wanted, _after) as w ("partition", after)
      on w.partition = partition_of(m.hash, _partitions, low) and c.first + m.place - 1 > w.after
    where c.topic = _topic and c.last > _from and c.last <= ending
    order by c.last, m.place
    limit _limit;
  end if;
  return query select
    ending, null::integer, null::uuid, null::text, null::text, null::text, null::text, null::text, null::text, null::jsonb,
    null::json, null::timestamptz;
end
$$;
