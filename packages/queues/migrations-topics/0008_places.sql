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

-- As relay_to_topics does, for one row of one message, as most are where little is published: the statement for many takes 150 µs longer.
create function relay_to_topic(_part oid, _tid tid, _now timestamptz) returns void language plpgsql
as $$
declare
  o outbox;
begin
  case _part
    when 'outbox_0'::regclass then delete from outbox_0 r where r.ctid = _tid returning r.* into o;
    when 'outbox_1'::regclass then delete from outbox_1 r where r.ctid = _tid returning r.* into o;
    else delete from outbox_2 r where r.ctid = _tid returning r.* into o;
  end case;
  insert into topic_chunk (
    topic, first, last, at, bytes, ids, hashes, types, tenants, published_at, keys, correlation_ids, causation_ids, traceparents,
    headers, data
  )
  select
    t.id, coalesce(l.last, 0) + 1, coalesce(l.last, 0) + 1, greatest(_now, l.at),
    pg_column_size(o.data) + coalesce(pg_column_size(o.headers), 0) + 200, o.ids, array[message_hash(o.keys[1], o.ids[1])],
    coalesce(o.types, array[o.destination]), o.tenants, array[o.published_at], o.keys, o.correlation_ids, o.causation_ids,
    o.traceparents, o.headers, o.data
  from topic t
  left join lateral (select c.last, c.at from topic_chunk c where c.topic = t.id order by c.last desc limit 1) l on true
  where t.name = o.destination;
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

alter table outbox_relay
  -- Up to this id all is relayed, and nothing comes any more.
  add column done bigint not null default 0,
  -- Up to this one nothing comes any more.
  add column ended bigint not null default 0,
  -- Up to this one nothing, once the transactions that were publishing are over.
  add column issued bigint not null default 0,
  add column publishing text[] not null default '{}',
  add column looked_at timestamptz not null default '-infinity';

-- As it was, but that it goes on above what it knows to be done.
--
-- Moves messages from the outbox to topics and queues, in the order of publishing. Whoever has the relay goes on having it; who has not
-- takes it over when its lease is over. Tells by what it was: `moved`, `standby` when somebody else has it.
--
-- Holds the relay's row until the commit, so nobody else moves anything meanwhile. What it moved is either there with all of it or
-- not moved, so it need not wait for the disk: who commits something of a message that was read waits for all that came before.
--
-- Rows that are gone stay in the index until nobody can see them any more, so it begins above those of which it knows that nothing is among
-- them any more: whoever publishes holds a lock on the outbox from before an id is taken until the row can be seen. Once all are over who
-- held one when an id was the last, nothing comes below that id.
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
  start bigint;
  last_issued bigint;
  holding text[];
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

  -- A look at locks for each step would cost more than it spares.
  if now not between relay.looked_at and relay.looked_at + interval '500 ms' then
    -- Not by its table: who reads that may see, for a moment, where the log of the sequence is ahead of it.
    last_issued := coalesce(pg_sequence_last_value('outbox_id'::regclass), 0);
    -- Ids that begin anew, as in a copy of a database without its sequences.
    if last_issued < relay.done then
      relay.done := 0;
      relay.ended := 0;
      update outbox_relay r set done = 0, ended = 0, issued = 0, publishing = '{}', looked_at = now;
    elsif last_issued > relay.ended then
      select coalesce(array_agg(l.virtualtransaction), '{}') into holding
      from pg_locks l
      where l.locktype = 'relation' and l.relation = 'outbox'::regclass and l.mode = 'RowExclusiveLock'
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and l.pid is distinct from pg_backend_pid();
      -- From the next step on, which sees all that is over now.
      if relay.publishing && holding then
        update outbox_relay r set looked_at = now;
      else
        update outbox_relay r set ended = relay.issued, issued = last_issued, publishing = holding, looked_at = now;
      end if;
    end if;
  end if;
  start := greatest(_above, relay.done);

  with next as materialized (
    select n.*, sum(n.count) over (order by n.id) - n.count as before
    from (
      select o.tableoid as part, o.ctid as tid, o.id, o.count, o.kind, o.destination, o.traceparents
      from outbox o
      where o.id > start
      order by o.id
      limit _rows
    ) n
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
        where n.before < _messages and m.traceparent is not null
        limit 16
      ) m
    ) as traceparents
  into taken
  from next n
  where n.before < _messages;
  perform set_config('synchronous_commit', 'off', true);
  if start = relay.done then
    relay.done := case when taken.is_all then relay.ended else least(taken.last, relay.ended) end;
    update outbox_relay r set done = relay.done where r.done < relay.done;
  end if;
  if taken.rows = 0 then
    return query select 'moved', 0, 0, _above, null::text[], null::text[];
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
    'moved', taken.rows::integer, taken.messages::integer, taken.last, taken.traceparents,
    array(
      select 'strata_topic_' || t.id from topic t where t.name = any (taken.topics)
      union all
      select 'strata_queue_' || q.id from queue q where q.name = any (taken.queues)
    );
end
$$;
