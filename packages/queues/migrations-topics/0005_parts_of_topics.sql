-- As it was, but for some of the partitions only: what is asked of all of them together is read without a function, which would put
-- each message into a store of rows and take it out again.
--
-- Messages of some partitions after the positions they are at, in order, and a last row that has no message, but tells where the topic
-- ends: who got fewer than asked for has seen all up to there. _from is the lowest of the positions.
create or replace function read_topic(
  _topic integer, _partitions integer, _wanted integer[], _after bigint[], _from bigint, _limit integer
) returns table (
  "position" bigint, "partition" integer, id uuid, key text, type text, tenant text, correlation_id text, causation_id text,
  traceparent text, headers jsonb, data json, published_at timestamptz
) language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  ending constant bigint := topic_end(_topic);
  low constant integer := highest_power(_partitions);
begin
  return query
  select
    c.first + m.place - 1, w.partition, m.id, m.key, m.type, m.tenant, m.correlation_id, m.causation_id, m.traceparent,
    m.headers, m.data, m.published_at
  from topic_chunk c
  cross join lateral unnest(c.messages) with ordinality as m (
    id, hash, key, type, tenant, correlation_id, causation_id, traceparent, headers, data, published_at, options, place
  )
  join unnest(_wanted, _after) as w ("partition", after)
    on w.partition = partition_of(m.hash, _partitions, low) and c.first + m.place - 1 > w.after
  where c.topic = _topic and c.last > _from and c.last <= ending
  order by c.last, m.place
  limit _limit;
  return query select
    ending, null::integer, null::uuid, null::text, null::text, null::text, null::text, null::text, null::text, null::jsonb,
    null::json, null::timestamptz;
end
$$;
