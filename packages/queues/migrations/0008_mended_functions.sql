-- Functions of before, with what was wrong in them put right.

-- What went wrong with a message, one more: the first time and the last ninety-nine are kept, however often it is tried.
create function with_failure(_failures jsonb, _failure jsonb) returns jsonb language sql immutable
return case when jsonb_array_length(coalesce(_failures, '[]')) >= 100 then _failures - 1 else coalesce(_failures, '[]') end
  || jsonb_build_array(_failure);

-- Messages whose time has come may be claimed. Found by message_later_due; passes over what others are moving.
create or replace function promote_due(_queue integer, _limit integer) returns integer language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  -- An index takes no volatile bound: with one, all that is for later would be looked at.
  now constant timestamptz := clock_timestamp();
  moved queued_message[];
begin
  with due as (
    delete from message_later l where l.ctid = any(array(
      select d.ctid from message_later d
      where (d.message).queue = _queue and d.due <= now
      order by d.due
      limit _limit
      for update skip locked
    ))
    returning l.message
  )
  select array_agg(d.message order by (d.message).id) into moved from due d;
  if moved is null then
    return 0;
  end if;
  perform make_ready(moved, message_slot_now());
  insert into queue_delta (queue, later, ready) values (_queue, -cardinality(moved), cardinality(moved));
  return cardinality(moved);
end
$$;

-- Gives back what whoever had it has not settled in time; what has been tried often enough is given up. Found by
-- message_lease_until; passes over leases that are just being settled. Returns how many leases there were.
create or replace function expire_leases(_limit integer) returns integer language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  now constant timestamptz := clock_timestamp();
  each record;
  again queued_message[];
  dead queued_message[];
  most integer;
  expired integer := 0;
begin
  for each in
    delete from message_lease l where (l.tableoid, l.ctid) in (
      select e.tableoid, e.ctid from message_lease e
      where e.until < now
      order by e.until
      limit _limit
      for update skip locked
    )
    returning l.*
  loop
    expired := expired + 1;
    select coalesce((q.rules ->> 'maxAttempts')::integer, 5) into most from queue q where q.id = each.queue;
    again := array(
      select row(
        m.id, m.sent_at, m.first_at, m.queue, m.priority, m.attempts, m.crashes + 1, m.tenant, m.type, m.key, m.unique_key,
        m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes, m.stored_at,
        with_failure(m.failures, jsonb_build_object(
          'attempt', m.attempts, 'at', now, 'worker', each.worker, 'type', 'LeaseExpired',
          'message', 'The lease ran out before the message was settled'
        ))
      )::queued_message
      from unnest(each.messages) m
    );
    dead := array(select m from unnest(again) m where m.attempts >= most);
    again := array(select m from unnest(again) m where m.attempts < most);
    perform make_ready(again, -1::smallint);
    if cardinality(dead) > 0 then
      insert into dead_letter (id, queue, reason, fingerprint, error, message)
      select m.id, m.queue, 'attempts', 'LeaseExpired', m.failures -> -1, m from unnest(dead) m;
      perform end_messages(each.queue, dead, 'dead');
    end if;
    insert into queue_delta (queue, leased, ready, dead, failed)
    values (each.queue, -each.size, cardinality(again), cardinality(dead), each.size);
  end loop;
  return expired;
end
$$;

-- Whether a message is under a lease.
create function lease_has(_token uuid, _id bigint) returns boolean language sql stable
return exists (select from message_lease l cross join lateral unnest(l.messages) m where l.token = _token and m.id = _id);

-- Keys that nothing asks for any more: unique ones whose time is over, and those that a rate alone remembered. A key of a message may
-- be asked for as long as it is not locked, so a queue whose keys are just locked is left for the next time.
create index message_unique_until on message_unique (until) where until is not null;
create index message_key_remembered on message_key (allowed_at) where holders = '{}' and allowed_at > '-infinity';

create function forget_keys(_limit integer) returns void language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  now constant timestamptz := clock_timestamp();
  each record;
begin
  delete from message_unique u where u.ctid = any(array(
    select o.ctid from message_unique o where o.until < now order by o.until limit _limit for update skip locked
  ));
  for each in
    select f.queue, array_agg(f.key) as keys
    from (
      select k.queue, k.key from message_key k
      where k.holders = '{}' and k.allowed_at > '-infinity' and k.allowed_at < now
      limit _limit
    ) f
    group by f.queue
  loop
    if pg_try_advisory_xact_lock(hashtext(current_schema() || '.message_key'), each.queue) then
      delete from message_key k
      where k.queue = each.queue and k.key = any(each.keys) and k.holders = '{}' and k.allowed_at < now
        and not exists (select from message_parked p where (p.message).queue = k.queue and (p.message).key = k.key);
    end if;
  end loop;
end
$$;

-- Lets the next messages of keys begin, as many as may. The caller has locked the keys.
create or replace function advance_keys(_queue integer, _keys text[], _at_once integer) returns void language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  each record;
  next queued_message;
  moved queued_message[] := '{}';
begin
  for each in select k.key, cardinality(k.holders) as held from message_key k where k.queue = _queue and k.key = any(_keys) loop
    while each.held < _at_once loop
      delete from message_parked p where p.ctid = (
        select q.ctid from message_parked q
        where (q.message).queue = _queue and (q.message).key = each.key
          -- One that was sent before and was not claimed yet comes first.
          and not exists (
            select from message m where m.queue = _queue and m.key = each.key and m.id < (q.message).id
              and m.id <> all((select k.holders from message_key k where k.queue = _queue and k.key = each.key)::bigint[])
          )
        order by (q.message).id
        limit 1
      )
      returning (p.message).* into next;
      exit when not found;
      update message_key k set holders = k.holders || next.id where k.queue = _queue and k.key = each.key;
      moved := moved || next;
      each.held := each.held + 1;
    end loop;
  end loop;
  -- A key that nobody holds or waits for, and that no rate remembers, is a key nobody knows.
  delete from message_key k
  where k.queue = _queue and k.key = any(_keys) and k.holders = '{}' and k.allowed_at <= clock_timestamp()
    and not exists (select from message_parked p where (p.message).queue = _queue and (p.message).key = k.key);
  if cardinality(moved) > 0 then
    perform make_ready(moved, message_slot_now());
    insert into queue_delta (queue, parked, ready) values (_queue, -cardinality(moved), cardinality(moved));
  end if;
end
$$;

-- Of messages that were taken, those whose key lets them begin. The others are put aside: parked behind those of their key that
-- run or were sent before, or for later where its rate says so. Locks the keys of the queue.
create or replace function admit_by_key(
  _queue integer, _messages queued_message[], _at_once integer, _every interval, _burst integer
) returns queued_message[] language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  names constant text[] := array(select distinct m.key from unnest(_messages) m order by 1);
  now constant timestamptz := clock_timestamp();
  each queued_message;
  aside queued_message;
  held message_key;
  holds boolean;
  admitted queued_message[] := '{}';
  parked integer := 0;
  later integer := 0;
begin
  perform lock_keys(_queue);
  insert into message_key (queue, key) select _queue, n from unnest(names) n on conflict do nothing;
  foreach each in array array(select m from unnest(_messages) m order by m.id) loop
    select * into held from message_key k where k.queue = _queue and k.key = each.key;
    holds := each.id = any(held.holders);
    aside := each;
    -- It has not begun, so this was no attempt.
    aside.attempts := each.attempts - 1;
    aside.first_at := case when aside.attempts > 0 then each.first_at end;
    if not holds and (
      cardinality(held.holders) >= _at_once
      or exists (
        select from message m
        where m.queue = _queue and m.key = each.key and m.id < each.id and m.id <> all(held.holders)
      )
      or exists (
        select from message_parked p
        where (p.message).queue = _queue and (p.message).key = each.key and (p.message).id < each.id
      )
    ) then
      insert into message_parked values (aside);
      parked := parked + 1;
      continue;
    end if;
    -- Who waits for its rate holds its key already, so that none overtakes it.
    if not holds then
      update message_key k set holders = k.holders || each.id where k.queue = _queue and k.key = each.key;
    end if;
    if _every is not null and held.allowed_at > now + _every * (_burst - 1) then
      insert into message_later values (held.allowed_at - _every * (_burst - 1), aside);
      later := later + 1;
      continue;
    end if;
    admitted := admitted || each;
    if _every is not null then
      update message_key k set allowed_at = greatest(k.allowed_at, now) + _every
      where k.queue = _queue and k.key = each.key;
    end if;
  end loop;
  if parked + later > 0 then
    insert into queue_delta (queue, ready, parked, later) values (_queue, -parked - later, parked, later);
  end if;
  return admitted;
end
$$;

-- Makes room in a full queue for messages of a priority: the youngest of the lowest priority are given up, or none where they would
-- not be enough. Returns how many.
create or replace function drop_lowest(_queue integer, _below integer, _count integer) returns integer language plpgsql
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

-- Takes back a message that has not begun. False when there is none, or somebody is just claiming it.
create or replace function withdraw_message(_queue integer, _id bigint) returns boolean language plpgsql
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

-- Takes away messages that wait, at most _limit of them. Returns how many. What runs goes on.
create or replace function purge_messages(_queue integer, _limit integer) returns integer language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  gone queued_message[];
  count integer := 0;
begin
  with picked as (
    select m.tableoid as part, m.ctid as tid from message m where m.queue = _queue limit _limit for update skip locked
  ), deleted as (
    delete from message m using picked p where m.tableoid = p.part and m.ctid = p.tid
    returning row(
      m.id, m.sent_at, m.first_at, m.queue, m.priority, m.attempts, m.crashes, m.tenant, m.type, m.key, m.unique_key,
      m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes, m.stored_at, m.failures
    )::queued_message as message
  )
  select array_agg(d.message) into gone from deleted d;
  if gone is not null then
    perform end_messages(_queue, gone, 'withdrawn');
    insert into queue_delta (queue, ready) values (_queue, -cardinality(gone));
    count := cardinality(gone);
  end if;

  with deleted as (
    delete from message_later l where l.ctid = any(array(
      select d.ctid from message_later d where (d.message).queue = _queue limit _limit - count for update skip locked
    )) returning l.message
  )
  select array_agg(d.message) into gone from deleted d;
  if gone is not null then
    perform end_messages(_queue, gone, 'withdrawn');
    insert into queue_delta (queue, later) values (_queue, -cardinality(gone));
    count := count + cardinality(gone);
  end if;

  -- What waits behind others of its key.
  if count < _limit and exists (select from message_parked p where (p.message).queue = _queue) then
    perform lock_keys(_queue);
    with deleted as (
      delete from message_parked p where p.ctid = any(array(
        select d.ctid from message_parked d where (d.message).queue = _queue limit _limit - count
      )) returning p.message
    )
    select array_agg(d.message) into gone from deleted d;
    if gone is not null then
      perform end_messages(_queue, gone, 'withdrawn');
      insert into queue_delta (queue, parked) values (_queue, -cardinality(gone));
      count := count + cardinality(gone);
    end if;
  end if;
  return count;
end
$$;

-- Settles messages of a lease, each as it went. What is not named stays under the lease. False, and nothing is changed, when
-- the lease is no longer there.
create or replace function settle_messages(
  _token uuid,
  _done bigint[],
  -- Given back: the attempt does not count.
  _released bigint[],
  -- To be tried again, after so many seconds.
  _retried bigint[],
  _after double precision[],
  _failures jsonb[],
  -- Given up.
  _dead bigint[],
  _reasons text[],
  _fingerprints text[],
  _errors jsonb[]
) returns boolean language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  held message_lease;
  rest queued_message[];
  chosen queued_message[];
  now constant timestamptz := clock_timestamp();
  counts queue_delta;
begin
  delete from message_lease l where l.token = _token returning * into held;
  if not found then
    return false;
  end if;
  rest := array(
    select m from unnest(held.messages) m where m.id <> all(_done || _released || _retried || _dead)
  );
  if cardinality(rest) > 0 then
    insert into message_lease (token, queue, until, slot, size, worker, messages)
    values (_token, held.queue, held.until, message_slot_now(), cardinality(rest), held.worker, rest);
  end if;
  counts := (held.queue, 0, 0, 0, cardinality(rest) - held.size, 0, 0, 0, 0);

  chosen := array(select m from unnest(held.messages) m where m.id = any(_done));
  if cardinality(chosen) > 0 then
    perform end_messages(held.queue, chosen, 'done');
    counts.done := cardinality(chosen);
  end if;

  if cardinality(_released) > 0 then
    chosen := array(
      select row(
        m.id, m.sent_at, m.first_at, m.queue, m.priority, m.attempts - 1, m.crashes, m.tenant, m.type, m.key, m.unique_key,
        m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes, m.stored_at, m.failures
      )::queued_message
      from unnest(held.messages) m where m.id = any(_released)
    );
    perform make_ready(chosen, message_slot_now());
    counts.ready := cardinality(chosen);
  end if;

  if cardinality(_retried) > 0 then
    -- A failure without a text is a snooze: the attempt does not count.
    insert into message_later (due, message)
    select now + r.after * interval '1 second', row(
      m.id, m.sent_at, m.first_at, m.queue, m.priority, m.attempts - (r.failure is null)::integer, m.crashes, m.tenant, m.type,
      m.key, m.unique_key, m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes, m.stored_at,
      case when r.failure is null then m.failures
        else with_failure(m.failures, r.failure || jsonb_build_object('at', now)) end
    )::queued_message
    from unnest(held.messages) m
    join unnest(_retried, _after, _failures) as r (id, after, failure) on r.id = m.id;
    get diagnostics counts.later = row_count;
    -- Of those alone that are under the lease: what is said again counts once.
    counts.failed := (
      select count(*) from unnest(_retried, _failures) as r (id, failure)
      where r.failure is not null and exists (select from unnest(held.messages) m where m.id = r.id)
    );
  end if;

  if cardinality(_dead) > 0 then
    insert into dead_letter (id, queue, died_at, reason, fingerprint, error, message)
    select m.id, held.queue, now, d.reason, d.fingerprint, d.error || jsonb_build_object('at', now), m
    from unnest(held.messages) m
    join unnest(_dead, _reasons, _fingerprints, _errors) as d (id, reason, fingerprint, error) on d.id = m.id;
    get diagnostics counts.dead = row_count;
    counts.failed := counts.failed + counts.dead;
    perform end_messages(
      held.queue, array(select m from unnest(held.messages) m where m.id = any(_dead)), 'dead'
    );
  end if;
  insert into queue_delta select (counts).*;
  return true;
end
$$;

-- Sends messages, one after the other. Those of one call are sent together, or none of them where a queue is full. A row for each, in
-- the order given: inserted, replaced, skipped, or full.
--
-- Locks the unique keys that are named until the transaction ends.
create or replace function send_messages(
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
