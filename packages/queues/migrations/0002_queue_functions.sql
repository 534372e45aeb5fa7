-- What moves messages. Each function is one step of a message's life, and the last statement of its transaction where it can be:
-- what it locks is held until the commit.

-- The table that messages are written to now.
create function message_slot_now() returns smallint language sql stable
return (select s.slot from message_slot s);

-- Puts messages among those that may be claimed. Locks nothing but what it writes. A message that was claimed and given back before it
-- began has not been tried: the time it has for all its tries begins with the first of them.
create function make_ready(_messages queued_message[], _slot smallint) returns void language sql
begin atomic
  insert into message (
    id, sent_at, first_at, queue, priority, attempts, crashes, slot, tenant, type, key, unique_key, correlation_id,
    causation_id, traceparent, headers, data, bytes, stored_at, failures
  )
  select
    m.id, m.sent_at, case when m.attempts > 0 then m.first_at end, m.queue, m.priority, m.attempts, m.crashes, _slot,
    m.tenant, m.type, m.key, m.unique_key, m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes,
    m.stored_at, m.failures
  from unnest(_messages) m;
end;

-- Messages whose time has come may be claimed. Found by message_later_due; passes over what others are moving.
create function promote_due(_queue integer, _limit integer) returns integer language plpgsql
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

-- Whoever changes who holds the keys of a queue takes turns with the others, until the transaction ends: a claim comes to its keys
-- as it finds messages, in no order in which they could be locked one by one.
create function lock_keys(_queue integer) returns void language sql
begin atomic
  select pg_advisory_xact_lock(hashtext(current_schema() || '.message_key'), _queue);
end;

-- Lets the next messages of keys begin, as many as may. The caller has locked the keys.
create function advance_keys(_queue integer, _keys text[], _at_once integer) returns void language plpgsql
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
create function admit_by_key(
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

-- Claims messages in the order of priority and id, under one lease; those whose lease ran out before, under one each.
--
-- Messages are found by message_order, priority by priority, and passed over while others claim them. What a claimer knows to be gone it
-- leaves out by _above, so that it does not look at it again: an id for each priority from 10 to 0.
--
-- A queue that has large messages is claimed by bytes too, and tells the size of each message; of other queues it is null.
create function claim_messages(
  _queue integer,
  _worker text,
  -- Seconds.
  _lease double precision,
  _limit integer,
  _suspects integer,
  _above bigint[],
  _filter jsonpath,
  -- Bytes that are taken at most, if it is more than one message.
  _bytes integer
) returns table (
  token uuid, claimed_at timestamptz, id bigint, sent_at timestamptz, first_at timestamptz, priority smallint,
  attempts smallint, crashes smallint, tenant text, type text, key text, unique_key text, correlation_id text, causation_id text, traceparent text, headers jsonb,
  data json, bytes bytea, stored_at text, failures jsonb, size integer
) language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  _token constant uuid := gen_random_uuid();
  known queue;
  taken queued_message[] := '{}';
  batch queued_message[];
  keyed queued_message[];
  admitted queued_message[];
  suspected queued_message[];
  -- The ids of those that are not too much together; null where nobody counts bytes.
  fitting bigint[];
  bytes_left integer := _bytes;
  room integer := _limit;
  wanted integer;
  suspects integer := _suspects;
  every interval;
  burst integer;
  now constant timestamptz := clock_timestamp();
  until constant timestamptz := clock_timestamp() + _lease * interval '1 second';
begin
  select * into known from queue q where q.id = _queue and not q.paused;
  if not found then
    return;
  end if;
  if exists (select from message_later l where (l.message).queue = _queue and l.due <= now) then
    perform promote_due(_queue, 1000);
  end if;

  -- What limits the queue as a whole is judged by one claimer at a time.
  if known.rules ?| array['maxRunning', 'rate'] then
    select * into known from queue q where q.id = _queue for update;
    if known.rules ? 'maxRunning' then
      room := least(room, (known.rules ->> 'maxRunning')::integer - (
        select coalesce(sum(l.size), 0) from message_lease l where l.queue = _queue
      ));
    end if;
    if known.rules ? 'rate' then
      every := (known.rules #>> '{rate,every}')::double precision * interval '1 second';
      burst := (known.rules #>> '{rate,burst}')::integer;
      room := least(room, floor(
        extract(epoch from now + every * burst - greatest(known.allowed_at, now)) / extract(epoch from every)
      )::integer);
    end if;
    suspects := greatest(0, least(suspects, room));
    if room <= 0 then
      return;
    end if;
  end if;

  with suspect as (
    delete from message_suspect m where m.ctid = any(array(
      select s.ctid from message_suspect s
      where s.queue = _queue and (_filter is null or coalesce(s.headers, '{}') @@ _filter)
      order by s.priority desc, s.id
      limit suspects
      for update skip locked
    ))
    returning row(
      m.id, m.sent_at, coalesce(m.first_at, now), m.queue, m.priority, m.attempts + 1, m.crashes, m.tenant, m.type, m.key,
      m.unique_key, m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes, m.stored_at, m.failures
    )::queued_message as message
  )
  select array_agg(s.message) into suspected from suspect s;

  -- Again, as long as some of what was found had to be put aside for its key.
  loop
    wanted := room - cardinality(taken) - coalesce(cardinality(suspected), 0);
    exit when wanted <= 0;
    if known.weighs then
      exit when bytes_left <= 0;
      fitting := fitting_messages(_queue, _above, _filter, wanted, bytes_left);
      exit when fitting is null;
      wanted := cardinality(fitting);
    end if;
    with picked as materialized (
      select r.part, r.tid
      from unnest(_above) with ordinality as p (above, place)
      cross join lateral (
        select m.tableoid as part, m.ctid as tid from message m
        where m.slot >= 0 and m.queue = _queue and m.priority = 11 - p.place and m.id > p.above
          and (_filter is null or coalesce(m.headers, '{}') @@ _filter)
          and (fitting is null or m.id = any(fitting))
        order by m.id
        limit wanted
        for update skip locked
      ) r
      limit wanted
    ), gone_0 as (
      delete from message_0 m where m.ctid = any(array(select p.tid from picked p where p.part = 'message_0'::regclass))
      returning m.*
    ), gone_1 as (
      delete from message_1 m where m.ctid = any(array(select p.tid from picked p where p.part = 'message_1'::regclass))
      returning m.*
    ), gone_2 as (
      delete from message_2 m where m.ctid = any(array(select p.tid from picked p where p.part = 'message_2'::regclass))
      returning m.*
    ), gone as (
      select * from gone_0 union all select * from gone_1 union all select * from gone_2
    )
    select array_agg(row(
      m.id, m.sent_at, coalesce(m.first_at, now), m.queue, m.priority, m.attempts + 1, m.crashes, m.tenant, m.type, m.key,
      m.unique_key, m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes, m.stored_at, m.failures
    )::queued_message order by m.priority desc, m.id)
    into batch from gone m;
    exit when batch is null;
    if known.weighs then
      bytes_left := bytes_left - (select sum(payload_size(m.stored_at)) from unnest(batch) m);
    end if;
    keyed := array(select m from unnest(batch) m where m.key is not null);
    if cardinality(keyed) = 0 then
      taken := taken || batch;
      exit;
    end if;
    admitted := admit_by_key(
      _queue, keyed, coalesce((known.rules ->> 'maxRunningPerKey')::integer, 1),
      (known.rules #>> '{ratePerKey,every}')::double precision * interval '1 second',
      (known.rules #>> '{ratePerKey,burst}')::integer
    );
    taken := array(
      select m from (
        select m from unnest(taken) m
        union all select m from unnest(batch) m where m.key is null
        union all select m from unnest(admitted) m
      ) as a (m) order by (m).priority desc, (m).id
    );
    exit when cardinality(admitted) = cardinality(keyed);
  end loop;

  room := cardinality(taken) + coalesce(cardinality(suspected), 0);
  if room = 0 then
    return;
  end if;
  if every is not null then
    update queue q set allowed_at = greatest(q.allowed_at, now) + every * room where q.id = _queue;
  end if;
  if cardinality(taken) > 0 then
    insert into message_lease (token, queue, until, slot, size, worker, messages)
    values (_token, _queue, until, message_slot_now(), cardinality(taken), _worker, taken);
    return query select _token, now, m.id, m.sent_at, m.first_at, m.priority, m.attempts, m.crashes, m.tenant, m.type, m.key,
      m.unique_key, m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes, m.stored_at, m.failures,
      case when known.weighs then payload_size(m.stored_at) end
    from unnest(taken) m;
  end if;
  if cardinality(suspected) > 0 then
    return query with leased as (
      insert into message_lease (token, queue, until, slot, size, worker, messages)
      select gen_random_uuid(), _queue, until, message_slot_now(), 1, _worker, array[s]
      from unnest(suspected) s
      returning token, messages
    )
    select l.token, now, m.id, m.sent_at, m.first_at, m.priority, m.attempts, m.crashes, m.tenant, m.type, m.key, m.unique_key,
      m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes, m.stored_at, m.failures,
      case when known.weighs then payload_size(m.stored_at) end
    from leased l cross join lateral unnest(l.messages) m;
  end if;
  insert into queue_delta (queue, ready, leased) values (_queue, -room, room);
end
$$;

-- What a message has in common with others that ended is written down, and what it held is let go; what is done goes into the history of a
-- queue that keeps one. Locks the keys of the queue where one of the messages has one.
create function end_messages(_queue integer, _messages queued_message[], _state text) returns void language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  names constant text[] := array(select distinct m.key from unnest(_messages) m where m.key is not null order by 1);
  at_once integer;
  keeps boolean;
  has_unique boolean;
  has_apart boolean;
begin
  if _state = 'done' or cardinality(names) > 0 then
    select coalesce((q.rules ->> 'maxRunningPerKey')::integer, 1), q.rules ? 'history' into at_once, keeps
    from queue q where q.id = _queue;
  end if;
  select bool_or(m.unique_key is not null), bool_or(is_apart(m.stored_at)) into has_unique, has_apart
  from unnest(_messages) m;
  if has_unique then
    delete from message_unique u using unnest(_messages) m
    where u.queue = _queue and u.key = m.unique_key and u.id = m.id
      and not (_state = any(u.states) and coalesce(u.until > clock_timestamp(), _state <> 'done'));
  end if;
  if _state = 'done' and keeps then
    insert into message_history (id, queue, message) select m.id, _queue, m from unnest(_messages) m;
  elsif has_apart and _state <> 'dead' then
    perform end_payloads(_messages);
  end if;
  if cardinality(names) > 0 then
    perform lock_keys(_queue);
    update message_key k
    set holders = array(
      select h from unnest(k.holders) h where h <> all(array(select m.id from unnest(_messages) m where m.key = k.key))
    )
    where k.queue = _queue and k.key = any(names);
    perform advance_keys(_queue, names, at_once);
  end if;
end
$$;

-- Settles messages of a lease, each as it went. What is not named stays under the lease. False, and nothing is changed, when
-- the lease is no longer there.
create function settle_messages(
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

-- Settles whole leases at once, where all went well and nothing of them holds a key. Returns those that were still there.
create function settle_leases(_tokens uuid[]) returns setof uuid language sql
begin atomic
  with gone as (
    delete from message_lease l where l.token = any(_tokens) returning l.token, l.queue, l.size
  ), counted as (
    insert into queue_delta (queue, leased, done) select g.queue, -sum(g.size), sum(g.size) from gone g group by g.queue
  )
  select g.token from gone g;
end;

-- Gives back what whoever had it has not settled in time; what has been tried often enough is given up. Found by
-- message_lease_until; passes over leases that are just being settled. Returns how many leases there were.
create function expire_leases(_limit integer) returns integer language plpgsql
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

-- Renews leases. Returns those that are still there.
create function extend_leases(_tokens uuid[], _lease double precision) returns setof uuid language sql
begin atomic
  update message_lease l set until = greatest(l.until, clock_timestamp() + _lease * interval '1 second')
  where l.token = any(_tokens)
  returning l.token;
end;

-- Adds up what has changed. Called by one at a time.
create function fold_queue_counts() returns void language sql as $$
  with gone as (delete from queue_delta returning *)
  insert into queue_count as c (queue, ready, later, parked, leased, dead, sent, done, failed)
  select g.queue, sum(g.ready), sum(g.later), sum(g.parked), sum(g.leased), sum(g.dead), sum(g.sent), sum(g.done), sum(g.failed)
  from gone g group by g.queue
  on conflict (queue) do update set
    ready = c.ready + excluded.ready, later = c.later + excluded.later, parked = c.parked + excluded.parked,
    leased = c.leased + excluded.leased, dead = c.dead + excluded.dead, sent = c.sent + excluded.sent,
    done = c.done + excluded.done, failed = c.failed + excluded.failed
$$;

-- Called by one at a time. Empties tables that have no row any more, and has messages written to another one when one has grown. A table that some
-- transaction has written to and not committed is left for the next time. As the owner of the tables, for truncating passes by
-- row-level security, which these tables do not have, and is granted to nobody.
create function rotate_messages(_bytes bigint) returns void language plpgsql
security definer
set search_path from current
set lock_timeout = '20ms'
as $$
declare
  writing smallint;
  each smallint;
  filled boolean;
begin
  select s.slot into writing from message_slot s;
  foreach each in array array[0, 1, 2]::smallint[] loop
    continue when each = writing;
    begin
      if pg_relation_size(format('message_%s', each)::regclass) > 0 then
        execute format('select exists (select from message_%s)', each) into filled;
        if not filled then
          execute format('lock table message_%s in access exclusive mode', each);
          execute format('select exists (select from message_%s)', each) into filled;
          if not filled then
            execute format('truncate message_%s', each);
          end if;
        end if;
      end if;
      if pg_relation_size(format('message_lease_%s', each)::regclass) > 0 then
        execute format('select exists (select from message_lease_%s)', each) into filled;
        if not filled then
          execute format('lock table message_lease_%s in access exclusive mode', each);
          execute format('select exists (select from message_lease_%s)', each) into filled;
          if not filled then
            execute format('truncate message_lease_%s', each);
          end if;
        end if;
      end if;
    exception when lock_not_available then
      null;
    end;
  end loop;
  if pg_relation_size(format('message_%s', writing)::regclass) >= _bytes
    or pg_total_relation_size(format('message_lease_%s', writing)::regclass) >= _bytes then
    foreach each in array array[0, 1, 2]::smallint[] loop
      if each <> writing and pg_relation_size(format('message_%s', each)::regclass) = 0
        and pg_relation_size(format('message_lease_%s', each)::regclass) = 0 then
        update message_slot set slot = each;
        return;
      end if;
    end loop;
  end if;
end
$$;

-- Seconds until the next message that is for later may be claimed; null when there is none. Found by message_later_due.
create function next_due(_queue integer) returns double precision language sql stable
return (
  select extract(epoch from min(l.due) - clock_timestamp())::double precision
  from message_later l where (l.message).queue = _queue
);

-- What went wrong with a message, one more: the first time and the last ninety-nine are kept, however often it is tried.
create function with_failure(_failures jsonb, _failure jsonb) returns jsonb language sql immutable
return case when jsonb_array_length(coalesce(_failures, '[]')) >= 100 then _failures - 1 else coalesce(_failures, '[]') end
  || jsonb_build_array(_failure);

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
