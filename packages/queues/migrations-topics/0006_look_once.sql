-- As it was, but that it looks at what it has taken once, and of the traces of a row at the first ones: what a statement publishes for
-- hundreds of callers is one row.
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
  taken outbox_row[];
  total integer;
  last bigint;
  topics text[];
  queues text[];
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
    returning o.id, o.kind, o.destination, o.count, o.messages
  )
  select
    array_agg(row(g.id, g.kind, g.destination, g.messages)::outbox_row order by g.id), sum(g.count), max(g.id),
    array_agg(distinct g.destination) filter (where g.kind = 'topic'),
    array_agg(distinct g.destination) filter (where g.kind = 'queue')
  into taken, total, last, topics, queues
  from gone g;
  if taken is null then
    return query select 'moved', 0, 0, _above, null::text[], null::text[];
    return;
  end if;
  perform set_config('synchronous_commit', 'off', true);

  insert into topic (name)
  select d.name from unnest(topics) d (name)
  where not exists (select from topic t where t.name = d.name)
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

  if queues is not null then
    perform relay_to_queues(taken);
  end if;

  return query
  select
    'moved', cardinality(taken), total, last,
    (
      select array_agg(distinct m.traceparent)
      from (
        select m.traceparent from unnest(taken) r cross join lateral unnest(r.messages[1:16]) m
        where m.traceparent is not null limit 16
      ) m
    ),
    array(
      select 'strata_topic_' || t.id from topic t where t.name = any (topics)
      union all
      select 'strata_queue_' || q.id from queue q where q.name = any (queues)
    );
end
$$;
