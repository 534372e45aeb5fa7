-- Sending where something has to be looked at: a time, a unique key, a depth.

-- Messages of a queue that wait: ready, or for later.
create function queue_depth(_queue integer) returns bigint language sql stable
return
  coalesce((select c.ready + c.later + c.parked from queue_count c where c.queue = _queue), 0)
  + coalesce((select sum(d.ready + d.later + d.parked) from queue_delta d where d.queue = _queue), 0);

-- Where the message of a unique key is.
create function message_state(_queue integer, _id bigint) returns text language plpgsql stable
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
  if exists (select from message_later l where (l.message).id = _id) then
    return 'later';
  elsif exists (select from dead_letter d where d.id = _id) then
    return 'dead';
  elsif exists (
    select from message_lease l cross join lateral unnest(l.messages) m where l.queue = _queue and m.id = _id
  ) then
    return 'running';
  elsif exists (select from message m where m.queue = _queue and m.priority between 0 and 10 and m.id = _id)
    or exists (select from message_parked p where (p.message).queue = _queue and (p.message).id = _id) then
    return 'waiting';
  end if;
  return 'done';
end
$$;

-- Makes room in a full queue for messages of a priority: the youngest of the lowest priority are given up, or none where they would
-- not be enough. Returns how many.
create function drop_lowest(_queue integer, _below integer, _count integer) returns integer language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  dropped queued_message[];
begin
  with lowest as materialized (
    select m.tableoid as part, m.ctid as tid from message m
    where m.queue = _queue and m.priority < _below
    order by m.priority, m.id desc
    limit _count
    for update skip locked
  ), gone as (
    delete from message m using lowest l
    where m.tableoid = l.part and m.ctid = l.tid and (select count(*) from lowest) = _count
    returning row(
      m.id, m.sent_at, m.first_at, m.queue, m.priority, m.attempts, m.crashes, m.tenant, m.type, m.key, m.unique_key,
      m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes, m.stored_at, m.failures
    )::queued_message as message
  )
  select array_agg(g.message) into dropped from gone g;
  if dropped is null then
    return 0;
  end if;
  insert into dead_letter (id, queue, reason, fingerprint, error, message)
  select m.id, _queue, 'dropped', 'QueueFull', json_build_object('message', 'The queue was full of more urgent messages'), m
  from unnest(dropped) m;
  perform end_messages(_queue, dropped, 'dead');
  insert into queue_delta (queue, ready, dead) values (_queue, -cardinality(dropped), cardinality(dropped));
  return cardinality(dropped);
end
$$;

-- Sends messages, one after the other. Those of one call are sent together, or none of them where a queue is full. A row for each, in
-- the order given: inserted, replaced, skipped, or full.
--
-- Locks the unique keys that are named until the transaction ends.
create function send_messages(
  _call integer[], _queue integer[], _priority integer[], _tenant text[], _type text[], _key text[], _correlation_id text[],
  _causation_id text[], _traceparent text[], _headers jsonb[], _data json[], _bytes bytea[], _stored_at text[],
  -- Seconds from now.
  _delay double precision[],
  -- The unique key, the states in which it is taken as an array in text, for how many seconds, and whether it takes the place of
  -- another one.
  _unique text[], _states text[], _window double precision[], _replaces boolean[]
) returns table (outcome text, id bigint, depth bigint, most bigint, wait double precision) language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  each record;
  known message_unique;
  now constant timestamptz := clock_timestamp();
  slot constant smallint := message_slot_now();
  place queued_message;
  state text;
  due timestamptz;
  full_calls jsonb := '{}';
  spilled integer[] := '{}';
begin
  -- How much room there is, for the queues that have a bound.
  for each in
    select c.call, c.queue, c.count, c.priority, q.rules, queue_depth(c.queue) as depth
    from (
      select s.call, s.queue, count(*)::integer as count, min(s.priority) as priority
      from unnest(_call, _queue, _priority) as s (call, queue, priority) group by s.call, s.queue
    ) c
    join queue q on q.id = c.queue and q.rules ? 'maxDepth'
    order by c.call
  loop
    continue when each.depth + each.count <= (each.rules ->> 'maxDepth')::bigint;
    if each.rules ->> 'overflow' = 'spill' then
      spilled := spilled || each.queue;
    elsif each.rules ->> 'overflow' = 'dropLowest' and drop_lowest(
      each.queue, each.priority, (each.depth + each.count - (each.rules ->> 'maxDepth')::bigint)::integer
    ) >= each.depth + each.count - (each.rules ->> 'maxDepth')::bigint then
      null;
    else
      full_calls := full_calls
        || jsonb_build_object(each.call::text, jsonb_build_array(each.depth, each.rules -> 'maxDepth'));
    end if;
  end loop;

  -- Where that was all there is to look at, they are written together.
  if full_calls = '{}' and spilled = '{}' and not exists (
    select from unnest(_delay, _unique) as m (delay, unique_key) where m.delay > 0 or m.unique_key is not null
  ) then
    return query with sent as (
      insert into message as t (
        slot, queue, priority, tenant, type, key, correlation_id, causation_id, traceparent, headers, data, bytes, stored_at
      )
      select
        slot, m.queue, m.priority, m.tenant, m.type, m.key, m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data,
        m.bytes, m.stored_at
      from unnest(
        _queue, _priority, _tenant, _type, _key, _correlation_id, _causation_id, _traceparent, _headers, _data, _bytes,
        _stored_at
      ) with ordinality as m (
        queue, priority, tenant, type, key, correlation_id, causation_id, traceparent, headers, data, bytes, stored_at, number
      )
      order by m.number
      returning t.id, t.queue
    ), counted as (
      insert into queue_delta (queue, ready, sent) select s.queue, count(*), count(*) from sent s group by s.queue
    )
    select 'inserted', s.id, null::bigint, null::bigint, null::double precision from sent s order by s.id;
    return;
  end if;

  for each in
    select * from unnest(
      _call, _queue, _priority, _tenant, _type, _key, _correlation_id, _causation_id, _traceparent, _headers, _data, _bytes,
      _stored_at, _delay, _unique, _states, _window, _replaces
    ) with ordinality as m (
      call, queue, priority, tenant, type, key, correlation_id, causation_id, traceparent, headers, data, bytes, stored_at,
      delay, unique_key, states, during, replaces, number
    )
    order by number
  loop
    outcome := 'inserted';
    id := null;
    depth := null;
    most := null;
    wait := null;
    if full_calls ? each.call::text then
      outcome := 'full';
      depth := (full_calls #>> array[each.call::text, '0'])::bigint;
      most := (full_calls #>> array[each.call::text, '1'])::bigint;
      -- A second for each thousand above it is no promise, but better than all at once.
      wait := 1;
      return next;
      continue;
    end if;

    id := nextval('message_id');
    if each.unique_key is not null then
      loop
        insert into message_unique as u (queue, key, id, states, until)
        values (each.queue, each.unique_key, id, each.states::text[], now + each.during * interval '1 second')
        on conflict (queue, key) do nothing;
        exit when found;
        select * into known from message_unique u where u.queue = each.queue and u.key = each.unique_key for update;
        -- Whoever held it has just let it go.
        continue when not found;
        state := message_state(each.queue, known.id);
        if coalesce(known.until > now, true) and state = any(each.states::text[]) then
          if each.replaces and state in ('waiting', 'later') and withdraw_message(each.queue, known.id) then
            outcome := 'replaced';
          else
            outcome := 'skipped';
            id := known.id;
            exit;
          end if;
        end if;
        insert into message_unique as u (queue, key, id, states, until)
        values (each.queue, each.unique_key, id, each.states::text[], now + each.during * interval '1 second')
        on conflict (queue, key) do update set id = excluded.id, states = excluded.states, until = excluded.until;
        exit;
      end loop;
      if outcome = 'skipped' then
        return next;
        continue;
      end if;
    end if;

    place := row(
      id, now, null, each.queue, each.priority, 0, 0, each.tenant, each.type, each.key, each.unique_key, each.correlation_id,
      each.causation_id, each.traceparent, each.headers, each.data, each.bytes, each.stored_at, null
    )::queued_message;
    if each.delay > 0 or each.queue = any(spilled) then
      insert into message_later (due, message) values (now + each.delay * interval '1 second', place);
      insert into queue_delta (queue, later, sent) values (each.queue, 1, 1);
    else
      perform make_ready(array[place], slot);
      insert into queue_delta (queue, ready, sent) values (each.queue, 1, 1);
    end if;
    return next;
  end loop;
end
$$;

-- Takes back a message that has not begun. False when there is none, or somebody is just claiming it.
create function withdraw_message(_queue integer, _id bigint) returns boolean language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  taken queued_message;
  gone queue_delta := (_queue, 0, 0, 0, 0, 0, 0, 0, 0);
begin
  delete from message_later l where l.ctid = any(array(
    select d.ctid from message_later d where (d.message).id = _id and (d.message).queue = _queue for update skip locked
  )) returning (l.message).* into taken;
  gone.later := -found::integer;
  if not found then
    with found as (
      select m.tableoid as part, m.ctid as tid from message m
      where m.queue = _queue and m.priority between 0 and 10 and m.id = _id
      for update skip locked
    )
    delete from message m using found f where m.tableoid = f.part and m.ctid = f.tid
    returning
      m.id, m.sent_at, m.first_at, m.queue, m.priority, m.attempts, m.crashes, m.tenant, m.type, m.key, m.unique_key,
      m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes, m.stored_at, m.failures
    into taken;
    gone.ready := -found::integer;
  end if;
  if not found and exists (select from message_parked p where (p.message).queue = _queue and (p.message).id = _id) then
    -- Before its row is, or who has locked the keys would wait for it, and it for them.
    perform lock_keys(_queue);
    delete from message_parked p where (p.message).queue = _queue and (p.message).id = _id returning (p.message).* into taken;
    gone.parked := -found::integer;
  end if;
  if taken.id is null then
    return false;
  end if;
  perform end_messages(_queue, array[taken], 'withdrawn');
  insert into queue_delta select (gone).*;
  return true;
end
$$;
