-- Looking at queues, and changing what is in them by hand.

-- Dead letters of a queue that somebody names: by ids, or by what they have in common. At most _limit of them, the oldest first.
create function find_dead_letters(
  _queue integer, _ids bigint[], _fingerprint text, _reason text, _type text, _tenant text, _from timestamptz, _to timestamptz,
  _after bigint, _limit integer
) returns setof dead_letter language sql stable
begin atomic
  select d.* from dead_letter d
  where d.queue = _queue
    and d.id > _after
    and (_ids is null or d.id = any(_ids))
    and (_fingerprint is null or d.fingerprint = _fingerprint)
    and (_reason is null or d.reason = _reason)
    and (_type is null or (d.message).type = _type)
    and (_tenant is null or (d.message).tenant = _tenant)
    and (_from is null or d.died_at >= _from)
    and (_to is null or d.died_at < _to)
  order by d.id
  limit _limit;
end;

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
create function discard_dead_letters(_queue integer, _ids bigint[]) returns integer language plpgsql as $$
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

-- Messages of a queue that wait, in the order in which they are claimed. Takes nothing.
create function browse_messages(_queue integer, _priority integer, _after bigint, _limit integer)
returns setof queued_message language sql stable
set enable_seqscan = off
begin atomic
  select row(
    m.id, m.sent_at, m.first_at, m.queue, m.priority, m.attempts, m.crashes, m.tenant, m.type, m.key, m.unique_key,
    m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes, m.stored_at, m.failures
  )::queued_message
  from message m
  where m.queue = _queue and (m.priority < _priority or m.priority = _priority and m.id > _after)
  order by m.priority desc, m.id
  limit _limit;
end;

-- Takes away messages that wait, at most _limit of them. Returns how many. What runs goes on.
create function purge_messages(_queue integer, _limit integer) returns integer language plpgsql
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
