-- As claim_messages was, but that it says once what is the same in all messages of a claim. Under another name, so that a process from
-- before is refused instead of taking messages under no token.
drop function claim_messages(integer, text, double precision, integer, integer, bigint[], jsonpath, integer);

-- Claims messages in the order of priority and id, under one lease; those whose lease ran out before, under one each.
--
-- Messages are found by message_order, priority by priority, and passed over while others claim them. What a claimer knows to be gone it
-- leaves out by _above, so that it does not look at it again: an id for each priority from 10 to 0.
--
-- A queue that has large messages is claimed by bytes too, and tells the size of each message; of other queues it is null.
--
-- Where the token, the time of the claim, the tenant or the type is null, it is that of the first row; a first try that is null begins now.
create function take_messages(
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
  -- Of those that are taken.
  first queued_message;
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
    first := taken[1];
    return query
    select
      case when m.place = 1 then _token end, case when m.place = 1 then now end, m.id, m.sent_at, nullif(m.first_at, now),
      m.priority, m.attempts, m.crashes, case when m.place = 1 or m.tenant <> first.tenant then m.tenant end,
      case when m.place = 1 or m.type <> first.type then m.type end, m.key, m.unique_key, m.correlation_id, m.causation_id,
      m.traceparent, m.headers, m.data, m.bytes, m.stored_at, m.failures,
      case when known.weighs then payload_size(m.stored_at) end
    from unnest(taken) with ordinality as m (
      id, sent_at, first_at, queue, priority, attempts, crashes, tenant, type, key, unique_key, correlation_id, causation_id,
      traceparent, headers, data, bytes, stored_at, failures, place
    );
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

