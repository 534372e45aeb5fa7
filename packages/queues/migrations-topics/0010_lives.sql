-- The relay commits without waiting for the disk, so a server that crashes may begin again without messages that groups have seen, and
-- give their positions to others. Who reads is told by which life of the server a page is, and moves in that one only.

-- Which life it is: whoever reads first makes one. A server that crashed, or took over from another one, begins with this table empty; so as
-- long as the same one is there, nothing was forgotten.
create unlogged table topic_life (
  one boolean primary key default true check (one),
  id uuid not null
);

-- As it was, but that it looks through 16 MiB at most, and the last row tells the life and, by a number in place of a partition, that there is
-- more than it looked through.
create or replace function read_topic(
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
  last_of_all constant bigint := topic_end(_topic);
  ending bigint := last_of_all;
  chunk record;
  size bigint := 0;
  -- Among so many messages there are as many as are wanted, as a rule.
  left_over bigint := greatest(_limit, 64)::bigint * _partitions / cardinality(_wanted);
  low constant integer := highest_power(_partitions);
begin
  for chunk in
    select c.first, c.last, c.bytes from topic_chunk c where c.topic = _topic and c.last > _from order by c.last
  loop
    ending := chunk.last;
    size := size + chunk.bytes;
    left_over := left_over - (chunk.last - greatest(chunk.first - 1, _from));
    exit when size >= 16777216 or left_over <= 0;
  end loop;
  return query
  select
    c.first + m.place - 1, w.partition, m.id, m.key, coalesce(m.type, c.types[1]), coalesce(m.tenant, c.tenants[1]),
    m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, coalesce(m.published_at, c.published_at[1])
  from topic_chunk c
  cross join lateral (
    select
      generate_subscripts(c.ids, 1) as place, unnest(c.ids) as id, unnest(c.hashes) as hash, unnest(c.keys) as key,
      unnest(c.types) as type, unnest(c.tenants) as tenant, unnest(c.correlation_ids) as correlation_id,
      unnest(c.causation_ids) as causation_id, unnest(c.traceparents) as traceparent, unnest(c.headers) as headers,
      unnest(c.data) as data, unnest(c.published_at) as published_at
  ) m
  join unnest(_wanted, _after) as w ("partition", after)
    on w.partition = partition_of(m.hash, _partitions, low) and c.first + m.place - 1 > w.after
  where c.topic = _topic and c.last > _from and c.last <= ending
  order by c.last, m.place
  limit _limit;
  return query select
    ending, case when ending < last_of_all then 1 end, (select l.id from topic_life l), null::text, null::text, null::text, null::text,
    null::text, null::text, null::jsonb, null::json, null::timestamptz;
end
$$;

-- As it was, but that rows with one id, which there are where ids began anew, come one after the other.
create or replace function relay_to_topics(_parts oid[], _tids tid[], _now timestamptz) returns void language plpgsql
as $$
begin
  -- What is many already is a chunk as it is, and what has no neighbours; what is few, with its neighbours. Of what is more than
  -- 4 MiB, several.
  with gone_0 as (
    delete from outbox_0 o
    where o.ctid = any(array(select n.tid from unnest(_parts, _tids) as n (part, tid) where n.part = 'outbox_0'::regclass))
    returning o.*
  ), gone_1 as (
    delete from outbox_1 o
    where o.ctid = any(array(select n.tid from unnest(_parts, _tids) as n (part, tid) where n.part = 'outbox_1'::regclass))
    returning o.*
  ), gone_2 as (
    delete from outbox_2 o
    where o.ctid = any(array(select n.tid from unnest(_parts, _tids) as n (part, tid) where n.part = 'outbox_2'::regclass))
    returning o.*
  ), gone as (
    select * from gone_0
    union all
    select * from gone_1
    union all
    select * from gone_2
  ), ending as materialized (
    select t.id, t.name, coalesce(l.last, 0) as last, greatest(_now, l.at) as at
    from topic t
    left join lateral (select c.last, c.at from topic_chunk c where c.topic = t.id order by c.last desc limit 1) l on true
    where t.name in (select g.destination from gone g)
  ), placed as materialized (
    select
      g.*, e.id as topic, e.at, e.last + sum(g.count) over before - g.count as base,
      g.light and (g.count >= 64 or count(*) over (partition by e.id) = 1) as stays,
      sum((g.light and g.count >= 64)::integer) over before as part
    from (select g.*, pg_column_size(g.data) <= 4194304 as light from gone g) g
    join ending e on e.name = g.destination
    window before as (partition by e.id order by g.id rows unbounded preceding)
  ), as_it_is as (
    insert into topic_chunk (
      topic, first, last, at, bytes, ids, hashes, types, tenants, published_at, keys, correlation_ids, causation_ids, traceparents,
      headers, data
    )
    select
      p.topic, p.base + 1, p.base + p.count, p.at,
      pg_column_size(p.data) + coalesce(pg_column_size(p.headers), 0) + coalesce(pg_column_size(p.keys), 0)
        + coalesce(pg_column_size(p.correlation_ids), 0) + coalesce(pg_column_size(p.causation_ids), 0)
        + coalesce(pg_column_size(p.traceparents), 0) + 50 * p.count,
      p.ids,
      array(select message_hash(m.key, m.id) from (select unnest(p.ids) as id, unnest(p.keys) as key) m),
      coalesce(p.types, array[p.destination]), p.tenants, array[p.published_at], p.keys, p.correlation_ids, p.causation_ids,
      p.traceparents, p.headers, p.data
    from placed p
    where p.stays
  )
  insert into topic_chunk (
    topic, first, last, at, bytes, ids, hashes, types, tenants, published_at, keys, correlation_ids, causation_ids, traceparents,
    headers, data
  )
  select
    g.topic, min(g.position), max(g.position), g.at, sum(g.size), array_agg(g.id order by g.position),
    array_agg(g.hash order by g.position), array_agg(g.type order by g.position), array_agg(g.tenant order by g.position),
    array_agg(g.published_at order by g.position), case when count(g.key) > 0 then array_agg(g.key order by g.position) end,
    case when count(g.correlation_id) > 0 then array_agg(g.correlation_id order by g.position) end,
    case when count(g.causation_id) > 0 then array_agg(g.causation_id order by g.position) end,
    case when count(g.traceparent) > 0 then array_agg(g.traceparent order by g.position) end,
    case when count(g.headers) > 0 then array_agg(g.headers order by g.position) end, array_agg(g.data order by g.position)
  from (
    select m.*, sum(m.size) over (partition by m.topic, m.part order by m.position) as total
    from (
      select
        m.topic, m.at, m.part, m.base + m.place as position,
        row_number() over (partition by m.topic, m.part order by m.base, m.place) as n,
        m.id, message_hash(m.key, m.id) as hash, coalesce(m.type, m.same_type, m.destination) as type,
        coalesce(m.tenant, m.same_tenant) as tenant, m.published_at, m.key, m.correlation_id, m.causation_id, m.traceparent,
        m.headers, m.data, pg_column_size(m.data) + coalesce(pg_column_size(m.headers), 0) + 200 as size
      from (
        select
          p.topic, p.at, p.part, p.base, p.destination, p.types[1] as same_type, p.tenants[1] as same_tenant, p.published_at,
          generate_subscripts(p.ids, 1) as place, unnest(p.ids) as id, unnest(p.types) as type, unnest(p.tenants) as tenant,
          unnest(p.keys) as key, unnest(p.correlation_ids) as correlation_id, unnest(p.causation_ids) as causation_id,
          unnest(p.traceparents) as traceparent, unnest(p.headers) as headers, unnest(p.data) as data
        from placed p
        where not p.stays
      ) m
    ) m
  ) g
  group by g.topic, g.part, g.at, (g.n - 1) / 500, div(g.total, 1048576);
end
$$;

-- As it was, but that a step has a bound of bytes, that whoever takes the relay over trusts nothing of what the one before knew, and that
-- rows with one id do not part.
--
-- Moves messages from the outbox to topics and queues, in the order of publishing. Whoever has the relay goes on having it; who has not
-- takes it over when its lease is over. Tells by what it was: `moved`, `more` when there is more
-- than it moved, `standby` when somebody else has it.
--
-- Holds the relay's row until the commit, so nobody else moves anything meanwhile. What it moved is either there with all of it or
-- not moved, so it need not wait for the disk: who commits something of a message that was read waits for all that came before.
--
-- Rows that are gone stay in the index until nobody can see them any more, so it begins above those of which it knows that nothing is among
-- them any more: whoever publishes holds a lock on the outbox from before an id is taken until the row can be seen. Once all are over who
-- held one when an id was the last, nothing comes below that id. A transaction that is prepared has another name in each place where locks
-- are told of and after each restart, so nothing is known to be over while there is one. Whoever takes the relay over looks at all.
create or replace function relay_outbox(
  _owner uuid, _label text,
  -- Seconds.
  _lease double precision,
  -- Rows and messages that are moved at most; one row at least.
  _rows integer, _messages integer
) returns table (state text, rows integer, messages integer, traceparents text[], channels text[])
language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  relay outbox_relay;
  now constant timestamptz := clock_timestamp();
  ends constant timestamptz := now + _lease * interval '1 second';
  -- Bytes that are moved at most, but for what is more by itself: it is over before the time of a statement is.
  heaviest constant bigint := 16777216;
  taken record;
  last_issued bigint;
  holding text[];
  is_prepared boolean;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'relay_outbox: expected the isolation level read committed, got %', current_setting('transaction_isolation')
      using errcode = 'feature_not_supported';
  end if;
  select * into relay from outbox_relay r for update skip locked;
  if relay.one is null then
    return query select 'standby', 0, 0, null::text[], null::text[];
    return;
  end if;
  if relay.owner is distinct from _owner then
    -- A lease that ends later than any that begins now is of a clock that was set back.
    if relay.owner is not null and relay.until > now and relay.until <= ends then
      return query select 'standby', 0, 0, null::text[], null::text[];
      return;
    end if;
    update outbox_relay r set owner = _owner, label = _label, epoch = r.epoch + 1, until = ends, done = 0, ended = 0, issued = 0, publishing = '{}';
    relay.done := 0;
    relay.ended := 0;
    relay.issued := 0;
    relay.publishing := '{}';
  elsif relay.until < now + (ends - now) / 2 or relay.until > ends then
    update outbox_relay r set until = ends;
  end if;

  -- A look at locks for each step would cost more than it spares.
  if now not between relay.looked_at and relay.looked_at + interval '500 ms' then
    -- Not by its table: who reads that may see, for a moment, where the log of the sequence is ahead of it.
    last_issued := coalesce(pg_sequence_last_value('outbox_id'::regclass), 0);
    -- Ids that begin anew, as in a copy of a database without its sequences.
    if last_issued < relay.issued then
      relay.done := 0;
      relay.ended := 0;
      update outbox_relay r set done = 0, ended = 0, issued = 0, publishing = '{}', looked_at = now;
    elsif last_issued > relay.ended then
      select coalesce(array_agg(l.virtualtransaction), '{}'), coalesce(bool_or(l.pid is null), false) into holding, is_prepared
      from pg_locks l
      where l.locktype = 'relation' and l.relation = 'outbox'::regclass and l.mode = 'RowExclusiveLock'
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and l.pid is distinct from pg_backend_pid();
      -- From the next step on, which sees all that is over now.
      if is_prepared or relay.publishing && holding then
        update outbox_relay r set looked_at = now;
      else
        update outbox_relay r set ended = relay.issued, issued = last_issued, publishing = holding, looked_at = now;
      end if;
    end if;
  end if;

  with next as materialized (
    select
      n.*, sum(n.count) over so_far - n.count as before, sum(n.size) over so_far - n.size as size_before
    from (
      select
        o.tableoid as part, o.ctid as tid, o.id, o.count, o.kind, o.destination, o.traceparents,
        pg_column_size(o.data) + coalesce(pg_column_size(o.headers), 0) as size
      from outbox o
      where o.id > relay.done
      order by o.id
      limit _rows
    ) n
    window so_far as (order by n.id rows unbounded preceding)
  )
  select
    count(*) as rows, sum(n.count) as messages, max(n.id) as last,
    -- Nothing more can be seen.
    count(*) = (select count(*) from next) and count(*) < _rows as is_all,
    array_agg(distinct n.destination) filter (where n.kind = 'topic') as topics,
    array_agg(n.part) filter (where n.kind = 'topic') as topic_parts,
    array_agg(n.tid) filter (where n.kind = 'topic') as topic_tids,
    array_agg(distinct n.destination) filter (where n.kind = 'queue') as queues,
    array_agg(n.part) filter (where n.kind = 'queue') as queue_parts,
    array_agg(n.tid) filter (where n.kind = 'queue') as queue_tids,
    (
      select array_agg(distinct m.traceparent)
      from (
        select m.traceparent
        from next n
        cross join lateral unnest(n.traceparents[1:16]) as m (traceparent)
        where n.before < _messages and n.size_before < heaviest and m.traceparent is not null
        limit 16
      ) m
    ) as traceparents
  into taken
  from next n
  where n.before < _messages and n.size_before < heaviest;
  perform set_config('synchronous_commit', 'off', true);
  relay.done := case when taken.is_all then relay.ended else least(taken.last - 1, relay.ended) end;
  update outbox_relay r set done = relay.done where r.done < relay.done;
  if taken.rows = 0 then
    return query select 'moved', 0, 0, null::text[], null::text[];
    return;
  end if;

  if taken.topics is not null then
    insert into topic (name)
    select d.name from unnest(taken.topics) d (name)
    where not exists (select from topic t where t.name = d.name)
    on conflict do nothing;
    if taken.messages = 1 then
      perform relay_to_topic(taken.topic_parts[1], taken.topic_tids[1], now);
    else
      perform relay_to_topics(taken.topic_parts, taken.topic_tids, now);
    end if;
  end if;
  if taken.queues is not null then
    insert into queue (name)
    select d.name from unnest(taken.queues) d (name)
    where not exists (select from queue q where q.name = d.name)
    on conflict do nothing;
    perform relay_to_queues(taken.queue_parts, taken.queue_tids);
  end if;

  return query
  select
    case when taken.is_all then 'moved' else 'more' end, taken.rows::integer, taken.messages::integer, taken.traceparents,
    array(
      select 'strata_topic_' || t.id from topic t where t.name = any (taken.topics)
      union all
      select 'strata_queue_' || q.id from queue q where q.name = any (taken.queues)
    );
end
$$;

-- Groups without a member are dead after a time, however many processes look after them: three processes that look once each are no minute.
alter table consumer_group
  drop column misses,
  -- Since when nobody has found a live member.
  add column missed_since timestamptz;

drop function look_after_groups(integer);

-- Looks after groups: those that have had no live member for so many seconds are dead. Tells what has changed.
create function watch_groups(_seconds double precision) returns table (name text, change text) language plpgsql
as $$
#variable_conflict use_column
declare
  each consumer_group;
  now constant timestamptz := clock_timestamp();
  alive boolean;
begin
  for each in select * from consumer_group g where not g.cancelled order by g.id for update skip locked loop
    alive := exists (select from group_member m where m.consumer_group = each.id and m.lease_until > now);
    if alive and each.missed_since is not null then
      update consumer_group g set missed_since = null, dead_since = null where g.id = each.id;
      if each.dead_since is not null then
        return query select each.name, 'alive';
      end if;
    elsif not alive and each.dead_since is null then
      -- One that was missed later than now was missed by a clock that was set back.
      if each.missed_since is null or each.missed_since > now then
        update consumer_group g set missed_since = now where g.id = each.id;
      elsif each.missed_since <= now - least(_seconds, 1e9) * interval '1 second' then
        update consumer_group g set dead_since = now where g.id = each.id;
        return query select each.name, 'dead';
      end if;
    end if;
  end loop;
  perform refuse_without_groups();
end
$$;
