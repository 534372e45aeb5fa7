-- Consumer groups: each gets every message of its topics, shared among its members by partition.
--
-- Who takes part, and who is to have which partition, is settled under the lock of the group's row, one heartbeat after the other. What a
-- member commits is fenced by the epoch of the partition, in the transaction of the effect.

create table consumer_group (
  id integer generated always as identity primary key,
  name text collate "C" not null unique check (name <> ''),
  -- Where messages go that failed, until they are done or dead: see Retries.ts.
  queue integer not null,
  strategy text not null default 'sticky',
  paused boolean not null default false,
  -- Its members get nothing any more, and it holds nothing back. For good.
  cancelled boolean not null default false,
  -- Of the assignment. One more with each.
  epoch bigint not null default 0,
  -- Since when another assignment is due.
  changed_at timestamptz,
  -- Looks in a row that found no live member, and since when it counts as dead.
  misses integer not null default 0,
  dead_since timestamptz
);

create table group_member (
  consumer_group integer not null,
  id uuid not null,
  -- Of a static member: who comes back under it goes on where it was.
  instance text collate "C",
  name text not null,
  topics integer[] not null,
  -- Of the last assignment that it has taken in whole.
  epoch bigint not null default 0,
  previous_epoch bigint not null default 0,
  joined_at timestamptz not null default clock_timestamp(),
  -- Seconds without a heartbeat after which it counts as gone.
  session double precision not null,
  lease_until timestamptz not null,
  -- By when it is to have given up what is another's.
  revoke_until timestamptz,
  primary key (consumer_group, id)
);
create unique index group_member_instance on group_member (consumer_group, instance) where instance is not null;

create table group_partition (
  consumer_group integer not null,
  topic integer not null,
  partition integer not null,
  -- The last message that is done, parked or not of this partition.
  position bigint not null,
  -- One more with each owner, and with whatever else makes void what is going on.
  epoch bigint not null default 0,
  owner uuid,
  -- Who is to have it.
  target uuid,
  primary key (consumer_group, topic, partition)
);
-- How far each topic was read.
create index group_partition_topic on group_partition (topic, position);

-- Has a group read topics that it has not read before. The caller has locked the group.
create function subscribe_group(
  _group integer, _topics integer[],
  -- beginning, end, position or time.
  _kind text, _position bigint, _time timestamptz
) returns void language plpgsql
as $$
begin
  -- The number of their partitions does not change meanwhile.
  perform from topic t where t.id = any(_topics) order by t.id for key share;
  insert into group_partition (consumer_group, topic, partition, position)
  select _group, t.id, n, place_in_topic(t.id, _kind, _position, _time)
  from topic t cross join lateral generate_series(0, t.partitions - 1) as n
  where t.id = any(_topics)
    and not exists (select from group_partition p where p.consumer_group = _group and p.topic = t.id);
  if found then
    perform refuse_without_groups();
  end if;
end
$$;

-- The position before the first message that is read from there: nothing that is kept no more, and nothing that was not published yet.
create function place_in_topic(_topic integer, _kind text, _position bigint, _time timestamptz) returns bigint
language sql stable
return case _kind
  when 'beginning' then 0
  when 'end' then topic_end(_topic)
  when 'position' then greatest(0, least(_position, topic_end(_topic)))
  when 'time' then topic_before(_topic, _time)
end;

-- Adds partitions to a topic, while it is read. Each new one takes keys from one other only, and goes on from where that one is, so no key
-- is passed over or overtaken: what the other one is just doing is void, for it may be with keys that are no longer its own.
--
-- Locks the topic, then its groups in the order of their ids.
create function grow_topic(_topic integer, _partitions integer) returns integer language plpgsql
as $$
declare
  had integer;
begin
  select t.partitions into had from topic t where t.id = _topic for update;
  if had is null or had >= _partitions then
    return had;
  end if;
  perform from consumer_group g
  where g.id in (select p.consumer_group from group_partition p where p.topic = _topic)
  order by g.id
  for update;
  -- First of all: from then on nobody moves them.
  update group_partition p set epoch = p.epoch + 1, owner = null where p.topic = _topic;
  for added in had .. _partitions - 1 loop
    insert into group_partition (consumer_group, topic, partition, position)
    select p.consumer_group, p.topic, added, p.position
    from group_partition p
    where p.topic = _topic and p.partition = added - highest_power(added);
  end loop;
  update consumer_group g set changed_at = coalesce(g.changed_at, clock_timestamp())
  where g.id in (select p.consumer_group from group_partition p where p.topic = _topic);
  update topic t set partitions = _partitions where t.id = _topic;
  return _partitions;
end
$$;

-- Whether nothing is to be published to topics that want a reader now: those without a live group.
create function refuse_without_groups() returns void language sql
begin atomic
  delete from outbox_refusal r
  where r.kind = 'topic' and not exists (
    select from topic t
    where t.name = r.destination and t.requires_group and not exists (
      select from group_partition p join consumer_group g on g.id = p.consumer_group
      where p.topic = t.id and not g.cancelled and g.dead_since is null
    )
  );
  insert into outbox_refusal (kind, destination, reason)
  select 'topic', t.name, 'no live group reads it'
  from topic t
  where t.requires_group and not exists (
    select from group_partition p join consumer_group g on g.id = p.consumer_group
    where p.topic = t.id and not g.cancelled and g.dead_since is null
  )
  on conflict do nothing;
end;

-- Looks after groups: counts those without a live member, and takes the ones that had none so many times in a row for dead. Tells what
-- has changed.
create function look_after_groups(_misses integer) returns table (name text, change text) language plpgsql
as $$
#variable_conflict use_column
declare
  each consumer_group;
  alive boolean;
begin
  for each in select * from consumer_group g where not g.cancelled order by g.id for update skip locked loop
    alive := exists (
      select from group_member m where m.consumer_group = each.id and m.lease_until > clock_timestamp()
    );
    if alive and each.misses > 0 then
      update consumer_group g set misses = 0, dead_since = null where g.id = each.id;
      if each.dead_since is not null then
        return query select each.name, 'alive';
      end if;
    elsif not alive and each.dead_since is null then
      update consumer_group g
      set misses = g.misses + 1, dead_since = case when g.misses + 1 >= _misses then clock_timestamp() end
      where g.id = each.id;
      if each.misses + 1 >= _misses then
        return query select each.name, 'dead';
      end if;
    end if;
  end loop;
  perform refuse_without_groups();
end
$$;

-- Removes what a topic need not keep any more and every live group has read, at most so many chunks of each topic. Returns how many.
create function trim_topics(_chunks integer) returns integer language plpgsql
as $$
declare
  each topic;
  read_up_to bigint;
  ending bigint;
  removed integer := 0;
  gone integer;
begin
  for each in select * from topic t where t.keep_seconds is not null or t.keep_bytes is not null order by t.id loop
    ending := topic_end(each.id);
    select coalesce(min(p.position), ending) into read_up_to
    from group_partition p join consumer_group g on g.id = p.consumer_group
    where p.topic = each.id and not g.cancelled and g.dead_since is null;
    with kept as (
      select c.last, c.at, sum(c.bytes) over (order by c.last desc) as size
      from topic_chunk c
      where c.topic = each.id
    ), old as (
      select k.last from kept k
      where k.last <= read_up_to and k.last < ending
        and (k.at < clock_timestamp() - each.keep_seconds * interval '1 second' or k.size > each.keep_bytes)
      order by k.last
      limit _chunks
    )
    delete from topic_chunk c using old o where c.topic = each.id and c.last = o.last;
    get diagnostics gone = row_count;
    removed := removed + gone;
  end loop;
  return removed;
end
$$;

-- Puts messages of a group aside, in its queue: those that are to be tried again, those whose key waits for one of them, and those that
-- were given up. Those of one key come back in the order in which they were put aside.
create function divert_messages(
  _queue integer,
  -- waiting, retried or dead.
  _state text[], _key text[], _type text[], _tenant text[], _correlation_id text[], _causation_id text[], _traceparent text[],
  _headers jsonb[], _data json[], _sent_at timestamptz[],
  -- Of retried ones and dead ones.
  _after double precision[], _failure jsonb[], _reason text[], _fingerprint text[]
) returns void language plpgsql
as $$
declare
  each record;
  next bigint;
  now constant timestamptz := clock_timestamp();
  place queued_message;
  failure jsonb;
begin
  for each in
    select * from unnest(
      _state, _key, _type, _tenant, _correlation_id, _causation_id, _traceparent, _headers, _data, _sent_at, _after, _failure,
      _reason, _fingerprint
    ) with ordinality as m (
      state, key, type, tenant, correlation_id, causation_id, traceparent, headers, data, sent_at, after, failure, reason,
      fingerprint, number
    )
    order by m.number
  loop
    next := nextval('message_id');
    failure := each.failure || jsonb_build_object('at', now);
    place := row(
      next, each.sent_at, case when failure is not null then now end, _queue, 5, (failure is not null)::integer, 0,
      each.tenant, each.type, each.key, null, each.correlation_id, each.causation_id, each.traceparent, each.headers, each.data,
      null, null, case when each.state = 'retried' and failure is not null then jsonb_build_array(failure) end
    )::queued_message;
    if each.state = 'waiting' then
      perform make_ready(array[place], message_slot_now());
      insert into queue_delta (queue, ready, sent) values (_queue, 1, 1);
    elsif each.state = 'retried' then
      if each.key is not null then
        -- Who is to be tried again holds its key.
        perform lock_keys(_queue);
        insert into message_key as k (queue, key, holders) values (_queue, each.key, array[next])
        on conflict (queue, key) do update set holders = k.holders || next;
      end if;
      insert into message_later (due, message) values (now + each.after * interval '1 second', place);
      insert into queue_delta (queue, later, sent, failed) values (_queue, 1, 1, (failure is not null)::integer);
    else
      insert into dead_letter (id, queue, died_at, reason, fingerprint, error, message)
      values (next, _queue, now, each.reason, each.fingerprint, failure, place);
      insert into queue_delta (queue, dead, sent, failed) values (_queue, 1, 1, 1);
    end if;
  end loop;
end
$$;

-- Of some keys, those of which a queue still has a message that is not over.
create function busy_keys(_queue integer, _keys text[]) returns setof text language sql stable
begin atomic
  select k.key from unnest(_keys) as k (key)
  where exists (select from message m where m.queue = _queue and m.key = k.key)
    or exists (select from message_parked p where (p.message).queue = _queue and (p.message).key = k.key)
    or exists (select from message_key h where h.queue = _queue and h.key = k.key and h.holders <> '{}');
end;
