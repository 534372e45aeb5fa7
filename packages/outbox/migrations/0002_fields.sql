-- What one statement publishes to one destination is an array of each field, and no longer an array of messages: those were put together by
-- whoever published and taken apart by whoever read, for more than it takes to write them.

alter table outbox
  alter column messages drop not null,
  add column published_at timestamptz,
  -- Of each message, in the order of publishing.
  add column ids uuid[],
  -- One of them where it is that of all messages; no type where that is the name of the destination.
  add column types text[],
  add column tenants text[],
  -- Null where no message has any.
  add column keys text[],
  add column correlation_ids text[],
  add column causation_ids text[],
  add column traceparents text[],
  add column headers jsonb[],
  add column data json[],
  -- For a queue: priority, delay in seconds.
  add column options jsonb[];

-- Without what it replaces, which would stay with the row.
update outbox o set
  messages = null,
  published_at = m.published_at, ids = m.ids, types = m.types, tenants = m.tenants, keys = m.keys,
  correlation_ids = m.correlation_ids, causation_ids = m.causation_ids, traceparents = m.traceparents, headers = m.headers,
  data = m.data, options = m.options
from (
  select
    o.id as row_id, min(m.published_at) as published_at, array_agg(m.id order by m.place) as ids,
    array_agg(m.type order by m.place) as types, array_agg(m.tenant order by m.place) as tenants,
    case when count(m.key) > 0 then array_agg(m.key order by m.place) end as keys,
    case when count(m.correlation_id) > 0 then array_agg(m.correlation_id order by m.place) end as correlation_ids,
    case when count(m.causation_id) > 0 then array_agg(m.causation_id order by m.place) end as causation_ids,
    case when count(m.traceparent) > 0 then array_agg(m.traceparent order by m.place) end as traceparents,
    case when count(m.headers) > 0 then array_agg(m.headers order by m.place) end as headers, array_agg(m.data order by m.place) as data,
    case when count(m.options) > 0 then array_agg(m.options order by m.place) end as options
  from outbox o
  cross join lateral unnest(o.messages) with ordinality as m (
    id, hash, key, type, tenant, correlation_id, causation_id, traceparent, headers, data, published_at, options, place
  )
  group by o.id
) m
where o.id = m.row_id;

alter table outbox
  drop column messages,
  alter column published_at set not null, alter column ids set not null, alter column tenants set not null,
  alter column data set not null;

-- The fields are not compressed, since they are read once, and not looked at for statistics, which nobody asks for. What was inserted is not
-- vacuumed: it goes soon, and its table is truncated then.
do $$
declare
  part text;
  field text;
begin
  foreach part in array array['outbox_0', 'outbox_1', 'outbox_2'] loop
    execute format('alter table %I set (autovacuum_vacuum_insert_threshold = -1)', part);
    foreach field in array array[
      'ids', 'types', 'tenants', 'keys', 'correlation_ids', 'causation_ids', 'traceparents', 'headers', 'data', 'options'
    ] loop
      execute format('alter table %I alter column %I set storage external, alter column %2$I set statistics 0', part, field);
    end loop;
  end loop;
end
$$;

-- Publishes messages, all or none: names a destination that takes nothing now, and null otherwise. What is null in all of them goes as an
-- empty array; a type or a tenant that is that of all, as an array of one.
--
-- With an append: _append has the number of the append that each message goes with, from 1, and _outcomes what became of the
-- appends. Those that were not written, whose outcome is not 0, publish nothing.
create or replace function publish_messages(
  _outcomes integer[], _append integer[],
  -- The destinations, and for each message the number of its own, from 1.
  _kinds text[], _destinations text[], _to integer[],
  _id uuid[], _key text[], _type text[], _tenant text[], _correlation_id text[], _causation_id text[], _traceparent text[],
  _headers jsonb[], _data json[], _options jsonb[]
) returns text language plpgsql
set plan_cache_mode = force_generic_plan
as $$
declare
  written constant boolean := cardinality(_append) = 0 or 0 = all (_outcomes);
  refused text;
begin
  select format('%s %s: %s', r.kind, r.destination, r.reason) into refused
  from outbox_refusal r join unnest(_kinds, _destinations) with ordinality as d (kind, destination, number)
    on d.kind = r.kind and d.destination = r.destination
  where exists (
    select from unnest(_to) with ordinality as m (destination, number)
    where m.destination = d.number and (written or _outcomes[_append[m.number]] = 0)
  )
  limit 1;
  if refused is not null then
    return refused;
  end if;
  if written and cardinality(_destinations) = 1 then
    insert into outbox (
      slot, kind, destination, count, published_at, ids, types, tenants, keys, correlation_ids, causation_ids, traceparents,
      headers, data, options
    ) values (
      outbox_slot_now(), _kinds[1], _destinations[1], cardinality(_id), clock_timestamp(), _id,
      nullif(_type, array[_destinations[1]]), _tenant,
      nullif(_key, '{}'), nullif(_correlation_id, '{}'), nullif(_causation_id, '{}'), nullif(_traceparent, '{}'),
      nullif(_headers, '{}'), _data, nullif(_options, '{}')
    );
    return null;
  end if;
  -- Some of them each.
  for place in 1 .. cardinality(_destinations) loop
    insert into outbox (
      slot, kind, destination, count, published_at, ids, types, tenants, keys, correlation_ids, causation_ids, traceparents,
      headers, data, options
    )
    select
      outbox_slot_now(), _kinds[place], _destinations[place], count(*), clock_timestamp(), array_agg(m.id),
      case when cardinality(_type) = 1 then _type else array_agg(m.type) end,
      case when cardinality(_tenant) = 1 then _tenant else array_agg(m.tenant) end,
      case when count(m.key) > 0 then array_agg(m.key) end,
      case when count(m.correlation_id) > 0 then array_agg(m.correlation_id) end,
      case when count(m.causation_id) > 0 then array_agg(m.causation_id) end,
      case when count(m.traceparent) > 0 then array_agg(m.traceparent) end,
      case when count(m.headers) > 0 then array_agg(m.headers) end,
      array_agg(m.data),
      case when count(m.options) > 0 then array_agg(m.options) end
    from unnest(
      _id, _key, _type, _tenant, _correlation_id, _causation_id, _traceparent, _headers, _data, _options
    ) with ordinality as m (
      id, key, type, tenant, correlation_id, causation_id, traceparent, headers, data, options, number
    )
    where _to[m.number] = place and (written or _outcomes[_append[m.number]] = 0)
    having count(*) > 0;
  end loop;
  return null;
end
$$;

-- As it was, but that it looks for what is left of a table from its end: before that are the remains of what was relayed, which may be
-- millions of rows.
--
-- Takes back the space of tables all of whose rows are relayed, and has another one written to when this one has grown. The caller is
-- the only one who deletes rows. Waits for nobody.
create or replace function rotate_outbox(_bytes bigint) returns void language plpgsql
security definer
set search_path from current
set lock_timeout = '20ms'
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  writing smallint;
  each smallint;
  filled boolean;
begin
  select s.slot into writing from outbox_slot s;
  foreach each in array array[0, 1, 2]::smallint[] loop
    continue when each = writing or pg_relation_size(format('outbox_%s', each)::regclass) = 0;
    begin
      execute format('select exists (select from outbox_%s o order by o.id desc limit 1)', each) into filled;
      continue when filled;
      -- Waits for whoever has inserted and not committed.
      execute format('lock table outbox_%s in access exclusive mode', each);
      execute format('select exists (select from outbox_%s o order by o.id desc limit 1)', each) into filled;
      if not filled then
        execute format('truncate outbox_%s', each);
      end if;
    exception when lock_not_available then
      null;
    end;
  end loop;
  -- Most of it is apart from the rows.
  if pg_total_relation_size(format('outbox_%s', writing)::regclass) >= _bytes then
    foreach each in array array[0, 1, 2]::smallint[] loop
      if each <> writing and pg_relation_size(format('outbox_%s', each)::regclass) = 0 then
        update outbox_slot set slot = each;
        return;
      end if;
    end loop;
  end if;
end
$$;
