-- As it was, but that it gives one value: a function that gives columns is called by a scan, which stores them before it hands them over.
-- That took a twentieth of what an append takes apart from its flush.

drop function append_fact(
  integer, text, text, integer, uuid, text, integer, json, json, text, text, text, text, timestamptz, timestamptz
);

-- Appends one fact to one stream, the most common append by far: the same judgement as append_facts, without its batches.
--
-- Locks the store's row until the transaction ends, so it is to be the transaction's last statement. Every statement
-- in here sees what was committed before the lock was got, which READ COMMITTED grants to each of them.
--
-- Gives the outcome: 0 written, 1 the stream is at another version, 2 the event id is taken, 5 the stream is closed; the version of the
-- stream before it; the fact's position; and when it was recorded, in microseconds since 1970.
create function append_fact(
  _store integer,
  _tenant text,
  _stream text,
  -- -2 any, -1 the stream exists, otherwise exactly this version.
  _expected integer,
  _event_id uuid,
  _type text,
  _schema_version integer,
  _data json,
  _metadata json,
  _correlation_id text,
  _causation_id text,
  _actor text,
  _traceparent text,
  _valid_from timestamptz,
  _valid_to timestamptz
) returns bigint[] language plpgsql
-- A plan made while the tables are small must also be right when they are large.
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  outcome integer;
  "version" integer;
  "position" bigint;
  at timestamptz;
  -- Only this tenant's rows are there until the caller's scope is put back; see 0005_tenants.sql.
  outside constant text := current_setting('strata.tenant', true);
  scope text := set_config('strata.tenant', _tenant, true);
  closed boolean;
  seen boolean;
begin
  -- Takes the place, and the lock with it, before anything is looked at.
  update store s set head = s.head + 1, head_at = greatest(clock_timestamp(), s.head_at + interval '1 microsecond')
  where s.id = _store
  returning s.head, s.head_at into "position", at;

  loop
    -- Judges and writes at once. Served by stream_id, fact_version and fact_event_id. While the table is small,
    -- `store = _store` would let the planner settle for an index that begins with the store, and keep to it when the table
    -- is large: hence `+ 0`.
    insert into fact (
      store, version, position, stream, event_id, schema_version, recorded_at, valid_from, valid_to, tenant, type, data,
      metadata, correlation_id, causation_id, actor, traceparent
    )
    select
      _store, s.version + 1, "position", s.number, _event_id, _schema_version, at, coalesce(_valid_from, at),
      coalesce(_valid_to, 'infinity'), _tenant, _type, _data, _metadata, _correlation_id, _causation_id, _actor, _traceparent
    from (
      select
        stream.number,
        coalesce((select f.version from fact f where f.stream = stream.number order by f.version desc limit 1), 0) as version
      from stream
      where stream.store = _store and stream.tenant = _tenant and stream.id = _stream and stream.state = 'open'
      offset 0
    ) as s
    where (_expected = s.version or _expected = -2 or (_expected = -1 and s.version > 0))
      and (select true from fact f where f.event_id = _event_id and f.store + 0 = _store and f.tenant = _tenant) is null
      and coalesce(_valid_to, 'infinity') > coalesce(_valid_from, at)
    returning fact.version - 1 into "version";
    if found then
      outcome := 0;
      exit;
    end if;

    -- Refused, or the stream is not there yet.
    select
      s.state <> 'open',
      exists (select from fact f where f.event_id = _event_id and f.store + 0 = _store and f.tenant = _tenant),
      coalesce((select f.version from fact f where f.stream = s.number order by f.version desc limit 1), 0)
    into closed, seen, "version"
    from (select) as one
    left join stream s on s.store = _store and s.tenant = _tenant and s.id = _stream;
    outcome := case
      when seen then 2
      when closed then 5
      when not (_expected = -2 or _expected = "version" or (_expected = -1 and "version" > 0)) then 1
    end;
    if outcome is not null then
      update store s set head = s.head - 1 where s.id = _store;
      exit;
    end if;
    -- Last of all: the first result of an append that comes again may have ended by now.
    if coalesce(_valid_to, 'infinity') <= coalesce(_valid_from, at) then
      raise check_violation using message = 'The period would end before it begins', constraint = 'fact_validity';
    end if;
    insert into stream (store, tenant, id) values (_store, _tenant, _stream);
  end loop;
  scope := set_config('strata.tenant', outside, true);
  return array[outcome, "version", "position", (extract(epoch from at) * 1000000)::bigint];
end
$$;
