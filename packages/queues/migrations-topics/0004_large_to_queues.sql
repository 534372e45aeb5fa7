-- As it was, but that a large payload is told from a small one: claims count what they take.
--
-- Puts messages into queues, whatever depth those may have: what was published with a transaction is not refused afterwards.
create or replace function relay_to_queues(_taken outbox_row[]) returns void language plpgsql
as $$
declare
  slot constant smallint := message_slot_now();
begin
  insert into queue (name)
  select distinct r.destination from unnest(_taken) r
  where r.kind = 'queue' and not exists (select from queue q where q.name = r.destination)
  on conflict do nothing;
  with messages as materialized (
    select
      q.id as queue, m.*, coalesce((m.options ->> 'priority')::smallint, 5) as priority,
      coalesce((m.options ->> 'delay')::double precision, 0) as delay, r.id as row_id,
      case when pg_column_size(m.data) > 16384 then 'row:' || pg_column_size(m.data) || ':' end as stored_at
    from unnest(_taken) r
    join queue q on q.name = r.destination and r.kind = 'queue'
    cross join lateral unnest(r.messages) with ordinality as m (
      id, hash, key, type, tenant, correlation_id, causation_id, traceparent, headers, data, published_at, options, place
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
