-- What is said of streams: that too is a fact of the log, in the stream `$stream-<id>`, and the row of `stream` follows it.

-- Says something of a stream: other metadata, another state, or both; what is null stays as it was.
--
-- Locks the store's row until the transaction ends, like append_facts, so it is to be the transaction's last statement.
create function describe_stream(
  _store integer,
  _stream text,
  _state text,
  _metadata text,
  _event_id uuid,
  _type text,
  _reason text,
  _tenant text,
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
  about constant text := '$stream-' || _stream;
  head_before bigint;
  place integer;
begin
  select s.head, greatest(clock_timestamp(), s.head_at + interval '1 microsecond') into head_before, at
  from store s where s.id = _store for no key update;

  -- The same statement again, after its answer was lost.
  select f.position, f.recorded_at into "position", at
  from fact f where f.event_id = _event_id and f.store + 0 = _store;
  if found then
    outcome := 'written';
    return;
  end if;
  select greatest(clock_timestamp(), s.head_at + interval '1 microsecond') into at from store s where s.id = _store;
  if (select s.state = 'tombstoned' from stream s where s.store = _store and s.id = _stream) then
    outcome := 'tombstoned';
    return;
  end if;

  outcome := 'written';
  "position" := head_before + 1;
  insert into stream as s (store, id, version, state, metadata)
  values (_store, _stream, 0, coalesce(_state, 'open'), coalesce(_metadata::jsonb, '{}'))
  on conflict (store, id) do update
  set state = coalesce(_state, s.state), metadata = coalesce(_metadata::jsonb, s.metadata);
  insert into stream as s (store, id, version) values (_store, about, 1)
  on conflict (store, id) do update set version = s.version + 1
  returning s.version into place;
  insert into category as c (store, name, streams, facts) values (_store, '$stream', 1, 1)
  on conflict (store, name) do update
  set streams = c.streams + case when place = 1 then 1 else 0 end, facts = c.facts + 1;
  insert into fact (
    store, position, stream, version, origin, event_id, type, schema_version, data, metadata,
    correlation_id, tenant, actor, traceparent, valid_from, valid_to, recorded_at
  ) values (
    _store, "position", about, place, "position", _event_id, _type, 1,
    json_build_object('stream', _stream, 'metadata', _metadata::json, 'reason', _reason), '{}',
    _event_id::text, _tenant, _actor, _traceparent, at, 'infinity', at
  );
  update store s set head = "position", head_at = at where s.id = _store;
end
$$;
