-- Payloads that are too large for a row, messages that are done, and how long what is over is kept.

-- Payloads of the store that this database is, in parts: see PayloadStore.ts.
create sequence queue_payload_key;
create table queue_payload (
  key bigint not null,
  part integer not null,
  content bytea not null,
  primary key (key, part)
);
-- Not compressed: it is written once and read once.
alter table queue_payload alter column content set storage external;

-- Where payloads are that nobody needs any more. Written by the transaction that ends their message; whoever keeps them removes them after
-- its commit. A payload belongs to one message, wherever that is, so nobody else needs it.
create table queue_payload_ended (
  stored_at text not null
);

-- Messages that are done, of queues that keep them.
create table message_history (
  id bigint not null,
  queue integer not null,
  done_at timestamptz not null default clock_timestamp(),
  message queued_message not null
);
create index message_history_order on message_history (queue, id);
create index message_history_correlation on message_history (queue, ((message).correlation_id), id)
  where (message).correlation_id is not null;
-- What is to be forgotten.
create index message_history_done on message_history (queue, done_at);
create index dead_letter_died on dead_letter (queue, died_at);

-- Some of its messages are large, or were: claims look at how much they take.
alter table queue add column weighs boolean not null default false;

-- An answer that is too large for a row.
alter table queue_reply add column stored_at text;

-- What stored_at says of a payload is where it is, its size and, if that is not its row, its key there: row:20000:, json:20971520:17 or
-- bytes:20971520:18. Nothing is said of one that is small, and in its row.

-- Bytes of a payload, as far as they are worth counting. Reads no payload.
create function payload_size(_stored_at text) returns integer language sql immutable
return coalesce(split_part(_stored_at, ':', 2)::integer, 0);

-- Whether a payload is not in the row of its message.
create function is_apart(_stored_at text) returns boolean language sql immutable
return coalesce(_stored_at not like 'row:%', false);

-- Of the messages that a claim would take, the ids of as many as have so many bytes together; of one at least. Locks them, so that the
-- claim finds the same: about how many there are is looked at first, for what is locked and not taken is hidden from others. Found by
-- message_order.
create function fitting_messages(_queue integer, _above bigint[], _filter jsonpath, _limit integer, _bytes integer)
returns bigint[] language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  about integer;
  fitting bigint[];
begin
  select count(*) into about from (
    select sum(f.size) over (rows unbounded preceding) - f.size as before
    from (
      select r.size
      from unnest(_above) with ordinality as p (above, place)
      cross join lateral (
        select payload_size(m.stored_at) as size from message m
        where m.slot >= 0 and m.queue = _queue and m.priority = 11 - p.place and m.id > p.above
          and (_filter is null or coalesce(m.headers, '{}') @@ _filter)
        order by m.id
        limit _limit
      ) r
      limit _limit
    ) f
  ) s
  where s.before < _bytes;

  with picked as materialized (
    select r.id, r.size
    from unnest(_above) with ordinality as p (above, place)
    cross join lateral (
      select m.id, payload_size(m.stored_at) as size from message m
      where m.slot >= 0 and m.queue = _queue and m.priority = 11 - p.place and m.id > p.above
        and (_filter is null or coalesce(m.headers, '{}') @@ _filter)
      order by m.id
      limit about
      for update skip locked
    ) r
    limit about
  ), summed as (
    select p.id, sum(p.size) over (rows unbounded preceding) - p.size as before from picked p
  )
  select array_agg(s.id) into fitting from summed s where s.before < _bytes;
  return fitting;
end
$$;

drop function claim_messages(integer, text, double precision, integer, integer, bigint[], jsonpath);

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

-- Their payloads may be removed.
create function end_payloads(_messages queued_message[]) returns void language sql
begin atomic
  insert into queue_payload_ended (stored_at) select m.stored_at from unnest(_messages) m where is_apart(m.stored_at);
end;

-- What a message has in common with others that ended is written down, and what it held is let go; what is done goes into the history of a
-- queue that keeps one. Locks the keys of the queue where one of the messages has one.
create or replace function end_messages(_queue integer, _messages queued_message[], _state text) returns void language plpgsql
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

-- As settle_leases, for queues that keep what is done.
create function settle_leases_kept(_tokens uuid[]) returns setof uuid language sql
begin atomic
  with gone as (
    delete from message_lease l where l.token = any(_tokens) returning l.token, l.queue, l.size, l.messages
  ), counted as (
    insert into queue_delta (queue, leased, done) select g.queue, -sum(g.size), sum(g.size) from gone g group by g.queue
  ), kept as (
    insert into message_history (id, queue, message)
    select m.id, g.queue, m from gone g cross join lateral unnest(g.messages) m
  )
  select g.token from gone g;
end;

-- Takes back a message that has not begun. False when there is none, or somebody is just claiming it.
create or replace function withdraw_message(_queue integer, _id bigint) returns boolean language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  taken queued_message;
  was_later boolean;
begin
  delete from message_later l where l.ctid = any(array(
    select d.ctid from message_later d where (d.message).id = _id for update skip locked
  )) returning (l.message).* into taken;
  was_later := found;
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
  end if;
  if not found then
    delete from message_parked p where (p.message).queue = _queue and (p.message).id = _id returning (p.message).* into taken;
    if not found then
      return false;
    end if;
    perform end_payloads(array[taken]);
    insert into queue_delta (queue, parked) values (_queue, -1);
    return true;
  end if;
  if taken.key is not null then
    perform end_messages(_queue, array[taken], 'withdrawn');
  else
    perform end_payloads(array[taken]);
  end if;
  insert into queue_delta (queue, later, ready) values (_queue, -was_later::integer, was_later::integer - 1);
  return true;
end
$$;

drop function reprocess_dead_letters(integer, bigint[], json, bytea, jsonb);

-- Sends dead letters again, each once however often it is asked: as they were, or with another payload. A payload that is not in the
-- row is for one letter. Returns their ids.
create function reprocess_dead_letters(
  _queue integer, _ids bigint[], _data json, _bytes bytea, _stored_at text, _headers jsonb
) returns setof bigint language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  is_edited constant boolean := num_nonnulls(_data, _bytes, _stored_at) > 0;
  before queued_message[];
  taken queued_message[];
begin
  with gone as (
    delete from dead_letter d where d.queue = _queue and d.id = any(_ids) returning d.message
  )
  select array_agg(g.message order by (g.message).id) into before from gone g;
  if before is null then
    return;
  end if;
  taken := array(
    select row(
      m.id, m.sent_at, null, m.queue, m.priority, 0, 0, m.tenant, m.type, m.key, m.unique_key, m.correlation_id,
      m.causation_id, m.traceparent, coalesce(_headers, m.headers), case when is_edited then _data else m.data end,
      case when is_edited then _bytes else m.bytes end, case when is_edited then _stored_at else m.stored_at end,
      m.failures
    )::queued_message
    from unnest(before) m
  );
  if is_edited then
    perform end_payloads(before);
    update queue q set weighs = true
    where q.id = _queue and not q.weighs and payload_size(_stored_at) > 0;
  end if;
  perform make_ready(taken, message_slot_now());
  insert into queue_delta (queue, dead, ready) values (_queue, -cardinality(taken), cardinality(taken));
  return query select m.id from unnest(taken) m;
end
$$;

-- Forgets dead letters. Returns how many.
create or replace function discard_dead_letters(_queue integer, _ids bigint[]) returns integer language plpgsql as $$
declare
  gone queued_message[];
begin
  with deleted as (
    delete from dead_letter d where d.queue = _queue and d.id = any(_ids) returning d.message
  )
  select array_agg(d.message) into gone from deleted d;
  if gone is null then
    return 0;
  end if;
  delete from message_unique u using unnest(gone) m where u.queue = _queue and u.key = m.unique_key and u.id = m.id;
  perform end_payloads(gone);
  insert into queue_delta (queue, dead) values (_queue, -cardinality(gone));
  return cardinality(gone);
end
$$;

-- The payload of a schedule is its own: each message that it sends has another one.
create function end_schedule_payload() returns trigger language plpgsql as $$
begin
  insert into queue_payload_ended (stored_at)
  select s from (select old.message ->> 'storedAt') as o (s) where is_apart(s);
  return null;
end
$$;
create trigger queue_schedule_payload after delete or update of message on queue_schedule
  for each row execute function end_schedule_payload();

-- Forgets what was kept for as long as its queue says: at most so many messages of a kind and a queue at a time. Found by
-- message_history_done and dead_letter_died.
create function forget_messages(_limit integer) returns void language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  each record;
  now constant timestamptz := clock_timestamp();
begin
  for each in
    select
      q.id, now - (q.rules ->> 'keepDead')::double precision * interval '1 second' as died,
      now - coalesce((q.rules ->> 'history')::double precision, 0) * interval '1 second' as done
    from queue q
    where q.rules ?| array['history', 'keepDead'] or exists (select from message_history h where h.queue = q.id)
  loop
    with gone as (
      delete from message_history h where h.ctid = any(array(
        select o.ctid from message_history o
        where o.queue = each.id and o.done_at < each.done
        order by o.done_at
        limit _limit
      ))
      returning h.message
    )
    insert into queue_payload_ended (stored_at)
    select (g.message).stored_at from gone g where is_apart((g.message).stored_at);
    if each.died is not null then
      perform discard_dead_letters(each.id, array(
        select d.id from dead_letter d
        where d.queue = each.id and d.died_at < each.died
        order by d.died_at
        limit _limit
      ));
    end if;
  end loop;
end
$$;

drop function look_after_queues(integer, bigint, double precision);

-- What has to be done now and then, by one at a time; whoever finds another at it does nothing. What is forgotten is found by
-- inbox_at and queue_reply_at. True when there are payloads that nobody needs any more.
create function look_after_queues(_leases integer, _bytes bigint, _remember double precision, _forgotten integer)
returns boolean language plpgsql as $$
declare
  -- In variables, so that the indexes are asked and not read through.
  remembered constant timestamptz := clock_timestamp() - _remember * interval '1 second';
  awaited constant timestamptz := clock_timestamp() - interval '1 hour';
begin
  if not pg_try_advisory_xact_lock(hashtext(current_schema() || '.queues')) then
    return false;
  end if;
  perform expire_leases(_leases);
  perform fold_queue_counts();
  perform rotate_messages(_bytes);
  perform forget_messages(_forgotten);
  delete from inbox i where i.ctid = any(array(
    select o.ctid from inbox o where o.at < remembered order by o.at limit 1000
  ));
  with gone as (
    delete from queue_reply r where r.ctid = any(array(
      select o.ctid from queue_reply o where o.at < awaited order by o.at limit 1000
    ))
    returning r.stored_at
  )
  insert into queue_payload_ended (stored_at) select g.stored_at from gone g where g.stored_at is not null;
  return exists (select from queue_payload_ended);
end
$$;
