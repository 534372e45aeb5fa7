-- The outbox: what transactions promise to tell the world.
--
-- What one statement publishes to one destination is one row, so that a batch of a hundred messages costs hardly more than one. Rows are
-- inserted by whoever publishes, without a lock that others would wait for, and taken away by the relay in the order of their ids: a
-- transaction that began to publish after another one had committed has higher ids.

-- A message, from where it is published to where it is read.
create type outbox_message as (
  id uuid,
  -- Of its key, 0 to 2^31 - 1; of its id where it has none. It tells the partition of a topic.
  hash integer,
  key text,
  type text,
  tenant text,
  correlation_id text,
  causation_id text,
  traceparent text,
  headers jsonb,
  data json,
  published_at timestamptz,
  -- For a queue: priority, delay in seconds.
  options jsonb
);

create sequence outbox_id;

-- Rows are written to one of three tables in turn. When all of a table are relayed it is truncated, so that the space comes back without
-- vacuum, whatever holds vacuum back.
create table outbox (
  id bigint not null default nextval('outbox_id'),
  slot smallint not null,
  -- topic or queue.
  kind text collate "C" not null,
  destination text collate "C" not null,
  -- Of the messages.
  count integer not null,
  messages outbox_message[] not null
) partition by list (slot);

create table outbox_0 partition of outbox for values in (0);
create table outbox_1 partition of outbox for values in (1);
create table outbox_2 partition of outbox for values in (2);
-- Not compressed: it is read once.
alter table outbox_0 alter column messages set storage external;
alter table outbox_1 alter column messages set storage external;
alter table outbox_2 alter column messages set storage external;

-- The order of the relay.
create index outbox_order on outbox (id);

-- Which of the tables is written to now.
create table outbox_slot (
  one boolean primary key default true check (one),
  slot smallint not null
);
insert into outbox_slot (slot) values (0);

-- Destinations to which nothing is published now, and why. A handful.
create table outbox_refusal (
  kind text collate "C" not null,
  destination text collate "C" not null,
  reason text not null,
  primary key (kind, destination)
);

create function outbox_slot_now() returns smallint language sql stable
return (select s.slot from outbox_slot s);

-- Publishes messages, all or none: names a destination that takes nothing now, and null otherwise. What is null in all of them goes as an
-- empty array.
--
-- With an append: _append has the number of the append that each message goes with, from 1, and _outcomes what became of the
-- appends. Those that were not written, whose outcome is not 0, publish nothing.
create function publish_messages(
  _outcomes integer[], _append integer[],
  -- The destinations, and for each message the number of its own, from 1.
  _kinds text[], _destinations text[], _to integer[],
  _id uuid[], _key text[], _type text[], _tenant text[], _correlation_id text[], _causation_id text[], _traceparent text[],
  _headers jsonb[], _data json[], _options jsonb[]
) returns text language plpgsql
set plan_cache_mode = force_generic_plan
as $$
declare
  whole constant boolean := cardinality(_append) = 0;
  lone constant boolean := cardinality(_destinations) = 1;
  refused text;
begin
  select format('%s %s: %s', r.kind, r.destination, r.reason) into refused
  from outbox_refusal r join unnest(_kinds, _destinations) with ordinality as d (kind, destination, number)
    on d.kind = r.kind and d.destination = r.destination
  where exists (
    select from unnest(_to) with ordinality as m (destination, number)
    where m.destination = d.number and (whole or _outcomes[_append[m.number]] = 0)
  )
  limit 1;
  if refused is not null then
    return refused;
  end if;
  -- The order of a message is that in which it was given, without being sorted.
  for place in 1 .. cardinality(_destinations) loop
    insert into outbox (slot, kind, destination, count, messages)
    select
      outbox_slot_now(), _kinds[place], _destinations[place], count(*),
      array_agg(
        row(
          m.id, case when m.key is null then uuid_hash(m.id) else hashtext(m.key) end & 2147483647, m.key, m.type, m.tenant,
          m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, clock_timestamp(), m.options
        )::outbox_message
      )
    from unnest(
      _id, _key, _type, _tenant, _correlation_id, _causation_id, _traceparent, _headers, _data, _options
    ) with ordinality as m (
      id, key, type, tenant, correlation_id, causation_id, traceparent, headers, data, options, number
    )
    where (lone or _to[m.number] = place) and (whole or _outcomes[_append[m.number]] = 0)
    having count(*) > 0;
  end loop;
  return null;
end
$$;

-- The same where a refusal is an error: it takes the appends of the statement back.
create function publish_with_appends(
  _outcomes integer[], _append integer[], _kinds text[], _destinations text[], _to integer[], _id uuid[], _key text[],
  _type text[], _tenant text[], _correlation_id text[], _causation_id text[], _traceparent text[], _headers jsonb[], _data json[],
  _options jsonb[]
) returns void language plpgsql
as $$
declare
  refused constant text := publish_messages(
    _outcomes, _append, _kinds, _destinations, _to, _id, _key, _type, _tenant, _correlation_id, _causation_id, _traceparent,
    _headers, _data, _options
  );
begin
  if refused is not null then
    raise exception 'Nothing is published to %', refused using errcode = 'integrity_constraint_violation';
  end if;
end
$$;

-- Takes back the space of tables all of whose rows are relayed, and has another one written to when this one has grown. The caller is
-- the only one who deletes rows. Waits for nobody.
create function rotate_outbox(_bytes bigint) returns void language plpgsql
security definer
set search_path from current
set lock_timeout = '20ms'
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
      execute format('select exists (select from outbox_%s)', each) into filled;
      continue when filled;
      -- Waits for whoever has inserted and not committed.
      execute format('lock table outbox_%s in access exclusive mode', each);
      execute format('select exists (select from outbox_%s)', each) into filled;
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
