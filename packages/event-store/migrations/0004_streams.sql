-- What is said of streams: that too is a fact of the log, in the stream `$stream-<id>`, and the row of `stream` follows it.

-- Says something of a stream: other metadata, another state, or both; what is null stays as it was.
--
-- Locks the store's row until the transaction ends, like append_facts, so it is to be the transaction's last statement.
create function describe_stream(
  _store integer,
  _tenant text,
  _stream text,
  _state text,
  _metadata text,
  _event_id uuid,
  _type text,
  _reason text,
  _actor text,
  _traceparent text,
  -- written; tombstoned: nothing more can be said of the stream.
  out outcome text,
  out "position" bigint,
  out at timestamptz
) language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  outside constant text := current_setting('strata.tenant', true);
  scope text := set_config('strata.tenant', _tenant, true);
  about constant text := '$stream-' || _stream;
  number bigint;
  place integer;
begin
  <<describing>>
  begin
    select s.head + 1, greatest(clock_timestamp(), s.head_at + interval '1 microsecond') into "position", at
    from store s where s.id = _store for no key update;

    -- The same statement again, after its answer was lost.
    outcome := 'written';
    if exists (select from fact f where f.event_id = _event_id and f.store + 0 = _store and f.tenant = _tenant) then
      select f.position, f.recorded_at into "position", at
      from fact f where f.event_id = _event_id and f.store + 0 = _store and f.tenant = _tenant;
      exit describing;
    end if;
    if (
      select s.state = 'tombstoned' from stream s where s.store = _store and s.tenant = _tenant and s.id = _stream
    ) then
      outcome := 'tombstoned';
      exit describing;
    end if;

    insert into stream as s (store, tenant, id, state, metadata)
    values (_store, _tenant, _stream, coalesce(_state, 'open'), coalesce(_metadata::jsonb, '{}'))
    on conflict (store, tenant, id) do update
    set state = coalesce(_state, s.state), metadata = coalesce(_metadata::jsonb, s.metadata);
    select s.number into number from stream s where s.store = _store and s.tenant = _tenant and s.id = about;
    if number is null then
      insert into stream as s (store, tenant, id) values (_store, _tenant, about) returning s.number into number;
    end if;
    -- Served by fact_version.
    select coalesce(max(f.version), 0) + 1 into place from fact f where f.stream = number;
    insert into fact (
      store, version, position, stream, event_id, schema_version, recorded_at, valid_from, valid_to, tenant, type, data,
      metadata, actor, traceparent
    ) values (
      _store, place, "position", number, _event_id, 1, at, at, 'infinity', _tenant, _type,
      json_build_object('stream', _stream, 'metadata', _metadata::json, 'reason', _reason), '{}', _actor, _traceparent
    );
    update store s set head = "position", head_at = at where s.id = _store;
  end;
  scope := set_config('strata.tenant', outside, true);
end
$$;
