-- The relay begins above what is done, and nowhere else; it knows of transactions that are prepared, and of ids that begin anew while
-- there is no relay.

drop function relay_outbox(uuid, text, double precision, bigint, integer, integer);

-- Moves messages from the outbox to topics and queues, in the order of publishing. Whoever has the relay goes on having it; who has not
-- takes it over when its lease is over. Tells by what it was: `moved`, `standby` when somebody else has it.
--
-- Holds the relay's row until the commit, so nobody else moves anything meanwhile. What it moved is either there with all of it or
-- not moved, so it need not wait for the disk: who commits something of a message that was read waits for all that came before.
--
-- Rows that are gone stay in the index until nobody can see them any more, so it begins above those of which it knows that nothing is among
-- them any more: whoever publishes holds a lock on the outbox from before an id is taken until the row can be seen. Once all are over who
-- held one when an id was the last, nothing comes below that id. A transaction that is prepared has another name in each place where locks
-- are told of and after each restart, so nothing is known to be over while there is one. Whoever takes the relay over looks at all.
create function relay_outbox(
  _owner uuid, _label text,
  -- Seconds.
  _lease double precision,
  -- Rows and messages that are moved at most; one row at least.
  _rows integer, _messages integer
) returns table (state text, rows integer, messages integer, traceparents text[], channels text[])
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
  last_issued bigint;
  holding text[];
  is_prepared boolean;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'relay_outbox: expected the isolation level read committed, got %', current_setting('transaction_isolation')
      using errcode = 'feature_not_supported';
  end if;
  select * into relay from outbox_relay r for update skip locked;
  if relay.one is null then
    return query select 'standby', 0, 0, null::text[], null::text[];
    return;
  end if;
  if relay.owner is distinct from _owner then
    -- A lease that ends later than any that begins now is of a clock that was set back.
    if relay.owner is not null and relay.until > now and relay.until <= ends then
      return query select 'standby', 0, 0, null::text[], null::text[];
      return;
    end if;
    update outbox_relay r set owner = _owner, label = _label, epoch = r.epoch + 1, until = ends, done = 0;
    relay.done := 0;
  elsif relay.until < now + (ends - now) / 2 or relay.until > ends then
    update outbox_relay r set until = ends;
  end if;

  -- A look at locks for each step would cost more than it spares.
  if now not between relay.looked_at and relay.looked_at + interval '500 ms' then
    -- Not by its table: who reads that may see, for a moment, where the log of the sequence is ahead of it.
    last_issued := coalesce(pg_sequence_last_value('outbox_id'::regclass), 0);
    -- Ids that begin anew, as in a copy of a database without its sequences.
    if last_issued < relay.issued then
      relay.done := 0;
      relay.ended := 0;
      update outbox_relay r set done = 0, ended = 0, issued = 0, publishing = '{}', looked_at = now;
    elsif last_issued > relay.ended then
      select coalesce(array_agg(l.virtualtransaction), '{}'), coalesce(bool_or(l.pid is null), false) into holding, is_prepared
      from pg_locks l
      where l.locktype = 'relation' and l.relation = 'outbox'::regclass and l.mode = 'RowExclusiveLock'
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and l.pid is distinct from pg_backend_pid();
      -- From the next step on, which sees all that is over now.
      if is_prepared or relay.publishing && holding then
        update outbox_relay r set looked_at = now;
      else
        update outbox_relay r set ended = relay.issued, issued = last_issued, publishing = holding, looked_at = now;
      end if;
    end if;
  end if;

  with next as materialized (
    select n.*, sum(n.count) over (order by n.id) - n.count as before
    from (
      select o.tableoid as part, o.ctid as tid, o.id, o.count, o.kind, o.destination, o.traceparents
      from outbox o
      where o.id > relay.done
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
  relay.done := case when taken.is_all then relay.ended else least(taken.last, relay.ended) end;
  update outbox_relay r set done = relay.done where r.done < relay.done;
  if taken.rows = 0 then
    return query select 'moved', 0, 0, null::text[], null::text[];
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
    'moved', taken.rows::integer, taken.messages::integer, taken.traceparents,
    array(
      select 'strata_topic_' || t.id from topic t where t.name = any (taken.topics)
      union all
      select 'strata_queue_' || q.id from queue q where q.name = any (taken.queues)
    );
end
$$;
