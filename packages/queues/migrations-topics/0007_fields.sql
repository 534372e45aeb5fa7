-- A chunk of a topic is an array of each field, as the rows of the outbox are now: what is many already is moved as it is, field by field,
-- and what is read is not put together first.

drop function relay_to_queues(outbox_row[]);
drop type outbox_row;

alter table topic_chunk
  alter column messages drop not null,
  -- Of each message, in order.
  add column ids uuid[],
  -- Of its key, 0 to 2^31 - 1; of its id where it has none. It tells the partition.
  add column hashes integer[],
  -- One of them where it is that of all messages.
  add column types text[],
  add column tenants text[],
  add column published_at timestamptz[],
  -- Null where no message has any.
  add column keys text[],
  add column correlation_ids text[],
  add column causation_ids text[],
  add column traceparents text[],
  add column headers jsonb[],
  add column data json[];

-- Without what it replaces, which would stay with the row.
update topic_chunk c set
  messages = null,
  ids = m.ids, hashes = m.hashes, types = m.types, tenants = m.tenants, published_at = m.published_at, keys = m.keys,
  correlation_ids = m.correlation_ids, causation_ids = m.causation_ids, traceparents = m.traceparents, headers = m.headers,
  data = m.data
from (
  select
    c.topic, c.last, array_agg(m.id order by m.place) as ids, array_agg(m.hash order by m.place) as hashes,
    array_agg(m.type order by m.place) as types, array_agg(m.tenant order by m.place) as tenants,
    array_agg(m.published_at order by m.place) as published_at,
    case when count(m.key) > 0 then array_agg(m.key order by m.place) end as keys,
    case when count(m.correlation_id) > 0 then array_agg(m.correlation_id order by m.place) end as correlation_ids,
    case when count(m.causation_id) > 0 then array_agg(m.causation_id order by m.place) end as causation_ids,
    case when count(m.traceparent) > 0 then array_agg(m.traceparent order by m.place) end as traceparents,
    case when count(m.headers) > 0 then array_agg(m.headers order by m.place) end as headers, array_agg(m.data order by m.place) as data
  from topic_chunk c
  cross join lateral unnest(c.messages) with ordinality as m (
    id, hash, key, type, tenant, correlation_id, causation_id, traceparent, headers, data, published_at, options, place
  )
  group by c.topic, c.last
) m
where c.topic = m.topic and c.last = m.last;

alter table topic_chunk
  drop column messages,
  alter column ids set not null, alter column hashes set not null, alter column types set not null,
  alter column tenants set not null, alter column published_at set not null, alter column data set not null;

-- The fields are not compressed, since every group reads them, most of the time soon, and not looked at for statistics, which nobody asks
-- for.
do $$
declare
  field text;
begin
  foreach field in array array[
    'ids', 'hashes', 'types', 'tenants', 'published_at', 'keys', 'correlation_ids', 'causation_ids', 'traceparents', 'headers', 'data'
  ] loop
    execute format('alter table topic_chunk alter column %I set storage external, alter column %1$I set statistics 0', field);
  end loop;
end
$$;

drop type outbox_message;

create function message_hash(_key text, _id uuid) returns integer language sql immutable parallel safe
return case when _key is null then uuid_hash(_id) else hashtext(_key) end & 2147483647;

-- Moves rows of the outbox to their topics, in the order of their ids.
create function relay_to_topics(_parts oid[], _tids tid[], _now timestamptz) returns void language plpgsql
as $$
begin
  -- What is many already is a chunk as it is, and what has no neighbours; what is few, with its neighbours.
  with gone as (
    delete from outbox o using unnest(_parts, _tids) as n (part, tid)
    where o.tableoid = n.part and o.ctid = n.tid
    returning o.*
  ), placed as materialized (
    select
      g.*, t.id as topic, greatest(_now, l.at) as at,
      coalesce(l.last, 0) + sum(g.count) over before - g.count as base,
      g.count >= 64 or count(*) over (partition by t.id) = 1 as stays,
      sum(case when g.count >= 64 then 1 else 0 end) over before as many
    from gone g
    join topic t on t.name = g.destination
    left join lateral (select c.last, c.at from topic_chunk c where c.topic = t.id order by c.last desc limit 1) l on true
    window before as (partition by t.id order by g.id)
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
    select m.*, sum(m.size) over (partition by m.topic, m.many order by m.position) as total
    from (
      select
        p.topic, p.at, p.many, p.base + e.place as position,
        row_number() over (partition by p.topic, p.many order by p.base, e.place) as n,
        e.id, message_hash(e.key, e.id) as hash, coalesce(e.type, p.types[1], p.destination) as type,
        coalesce(e.tenant, p.tenants[1]) as tenant, p.published_at, e.key, e.correlation_id, e.causation_id, e.traceparent, e.headers,
        e.data, pg_column_size(e.data) + coalesce(pg_column_size(e.headers), 0) + 200 as size
      from placed p
      cross join lateral unnest(
        p.ids, p.types, p.tenants, p.keys, p.correlation_ids, p.causation_ids, p.traceparents, p.headers, p.data
      ) with ordinality as e (
        id, type, tenant, key, correlation_id, causation_id, traceparent, headers, data, place
      )
      where not p.stays
    ) m
  ) g
  group by g.topic, g.many, g.at, (g.n - 1) / 500, div(g.total, 1048576);
end
$$;

-- Moves rows of the outbox to their queues, whatever depth those may have: what was published with a transaction is not refused afterwards.
create function relay_to_queues(_parts oid[], _tids tid[]) returns void language plpgsql
as $$
declare
  slot constant smallint := message_slot_now();
begin
  with gone as (
    delete from outbox o using unnest(_parts, _tids) as n (part, tid)
    where o.tableoid = n.part and o.ctid = n.tid
    returning o.*
  ), messages as materialized (
    select
      q.id as queue, m.*, coalesce(m.given_type, g.types[1], g.destination) as type,
      coalesce(m.given_tenant, g.tenants[1]) as tenant, g.published_at, coalesce((m.options ->> 'priority')::smallint, 5) as priority,
      coalesce((m.options ->> 'delay')::double precision, 0) as delay, g.id as row_id,
      case when pg_column_size(m.data) > 16384 then 'row:' || pg_column_size(m.data) || ':' end as stored_at
    from gone g
    join queue q on q.name = g.destination
    cross join lateral unnest(
      g.types, g.tenants, g.keys, g.correlation_ids, g.causation_ids, g.traceparents, g.headers, g.data, g.options
    ) with ordinality as m (
      given_type, given_tenant, key, correlation_id, causation_id, traceparent, headers, data, options, place
    )
  ), ready as (
    insert into message (
      slot, queue, sent_at, priority, tenant, type, key, correlation_id, causation_id, traceparent, headers, data, stored_at
    )
    select
      slot, m.queue, m.published_at, m.priority, m.tenant, m.type, m.key, m.correlation_id, m.causation_id, m.traceparent,
      m.headers, m.data, m.stored_at
    from messages m
    where m.delay = 0
    order by m.row_id, m.place
    returning queue
  ), heavy as (
    update queue q set weighs = true
    where not q.weighs and q.id in (select m.queue from messages m where m.stored_at is not null)
  ), later as (
    insert into message_later (due, message)
    select
      m.published_at + m.delay * interval '1 second',
      row(
        nextval('message_id'), m.published_at, null, m.queue, m.priority, 0, 0, m.tenant, m.type, m.key, null,
        m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, null, m.stored_at, null
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

-- As it was, but that what it takes stays where it is until it is written where it goes.
--
-- Moves messages from the outbox to topics and queues, in the order of publishing. Whoever has the relay goes on having it; who has not
-- takes it over when its lease is over. Tells by what it was: `moved`, `standby` when somebody else has it.
--
-- Holds the relay's row until the commit, so nobody else moves anything meanwhile. What it moved is either there with all of it or
-- not moved, so it need not wait for the disk: who commits something of a message that was read waits for all that came before.
create or replace function relay_outbox(
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
  taken record;
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
    select n.*, sum(n.count) over (order by n.id) - n.count as before
    from (
      select o.tableoid as part, o.ctid as tid, o.id, o.count, o.kind, o.destination, o.traceparents
      from outbox o
      where o.id > _above
      order by o.id
      limit _rows
    ) n
  )
  select
    count(*) as rows, sum(n.count) as messages, max(n.id) as last,
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
        where n.before < _messages and m.traceparent is not null
        limit 16
      ) m
    ) as traceparents
  into taken
  from next n
  where n.before < _messages;
  if taken.rows = 0 then
    return query select 'moved', 0, 0, _above, null::text[], null::text[];
    return;
  end if;
  perform set_config('synchronous_commit', 'off', true);

  if taken.topics is not null then
    insert into topic (name)
    select d.name from unnest(taken.topics) d (name)
    where not exists (select from topic t where t.name = d.name)
    on conflict do nothing;
    perform relay_to_topics(taken.topic_parts, taken.topic_tids, now);
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
    'moved', taken.rows::integer, taken.messages::integer, taken.last, taken.traceparents,
    array(
      select 'strata_topic_' || t.id from topic t where t.name = any (taken.topics)
      union all
      select 'strata_queue_' || q.id from queue q where q.name = any (taken.queues)
    );
end
$$;

-- Messages of some partitions after the positions they are at, in order, and a last row that has no message, but tells where the topic
-- ends: who got fewer than asked for has seen all up to there. _from is the lowest of the positions.
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
  ending constant bigint := topic_end(_topic);
  low constant integer := highest_power(_partitions);
begin
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
    ending, null::integer, null::uuid, null::text, null::text, null::text, null::text, null::text, null::text, null::jsonb,
    null::json, null::timestamptz;
end
$$;
