-- The relay finds rows that it moves by their places, table by table, instead of looking each up in all three; where a topic ends it asks
-- once for each topic, and messages it takes out of their arrays without a table of them for each row.

-- Moves rows of the outbox to their topics, in the order of their ids.
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
    window before as (partition by e.id order by g.id)
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

-- Moves rows of the outbox to their queues, whatever depth those may have: what was published with a transaction is not refused afterwards.
create or replace function relay_to_queues(_parts oid[], _tids tid[]) returns void language plpgsql
as $$
declare
  slot constant smallint := message_slot_now();
begin
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
