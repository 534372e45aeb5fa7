-- An append over several streams is told all of them that are at another version, not the first one only.

-- Writes a batch of one tenant's appends, each of them whole or not at all, none touching its neighbours.
--
-- A *slice* is what one append says of one stream: the version it expects (-2 any, -1 the stream exists, otherwise
-- exactly this one) and how many facts it brings. Slices come sorted by append, appends are numbered from 1.
-- A fact names its slice and its place in it, from 1. Streams are numbered from 1 in `_streams`, in the order in which slices
-- first name them. What is null in every fact comes as an empty array. Arrays are unnested in `select`, where they go in step,
-- row by row; in `from` each of them would be stored first.
--
-- Locks like append_fact.
create or replace function append_facts(
  _store integer,
  _tenant text,
  _streams text[],
  _slice_append integer[],
  _slice_stream integer[],
  _slice_expected integer[],
  _slice_count integer[],
  _fact_slice integer[],
  _fact_ordinal integer[],
  _event_id uuid[],
  _type text[],
  _schema_version integer[],
  _data text[],
  _metadata text[],
  _correlation_id text[],
  _causation_id text[],
  _actor text[],
  _traceparent text[],
  _valid_from timestamptz[],
  _valid_to timestamptz[],
  _key_append integer[],
  _key text[],
  _key_fingerprint text[],
  _key_answer text[],
  -- Number in the batch of the last fact of the key's append.
  _key_last integer[],
  -- The condition of an append that is alone in its batch, null otherwise: that no fact of its tenant after this position
  -- matches any of these filters. An append in the same batch would not be seen.
  _condition_after bigint,
  _condition_filters jsonb,
  -- Per append: 0 written, 1 a stream is at another version, 2 an event id is taken, 3 its idempotency key is,
  -- 4 a fact matches its condition, 5 a stream is closed, 6 its condition names a position that is not there yet.
  out outcomes integer[],
  -- Per append refused for a stream: the slice, and the version its stream is at.
  out conflicts integer[],
  out actuals integer[],
  -- Per append: what to add to a fact's number in the batch to get its position.
  out offsets bigint[],
  -- Per slice: the version of its stream before it, also where the append is refused for one of its streams.
  out bases integer[],
  -- The position of the first fact that matches the condition.
  out blocker bigint,
  out at timestamptz
) language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  outside constant text := current_setting('strata.tenant', true);
  scope text := set_config('strata.tenant', _tenant, true);
  slices constant integer := cardinality(_slice_append);
  appends constant integer := _slice_append[slices];
  head_before bigint;
  numbers bigint[];
  versions integer[];
  versions_after integer[];
  closed boolean[];
  known boolean[];
  refused integer := 0;
  accepted integer := 0;
  facts integer;
  first integer := 1;
  past integer;
  append integer;
  stream_number integer;
begin
  select s.head, greatest(clock_timestamp(), s.head_at + interval '1 microsecond') into head_before, at
  from store s where s.id = _store for no key update;

  outcomes := array_fill(0, array[appends]);
  conflicts := outcomes;
  actuals := outcomes;
  offsets := array_fill(head_before, array[appends]);
  bases := array_fill(0, array[slices]);

  -- Served by fact_event_id; see append_fact for `+ 0`. One look for all of them, since hardly ever is one there.
  if exists (
    select from fact where fact.event_id = any (_event_id) and fact.store + 0 = _store and fact.tenant = _tenant
  ) then
    for append in
      select distinct _slice_append[f.slice]
      from unnest(_fact_slice, _event_id) as f(slice, event_id)
      where (select true from fact where fact.event_id = f.event_id and fact.store + 0 = _store and fact.tenant = _tenant)
    loop
      outcomes[append] := 2;
    end loop;
  end if;

  -- Served by the primary key of idempotency_key.
  if cardinality(_key) > 0 then
    for append in
      select k.append
      from unnest(_key_append, _key) as k(append, key)
      where outcomes[k.append] = 0
        and (select true from idempotency_key i where i.store = _store and i.tenant = _tenant and i.key = k.key)
    loop
      outcomes[append] := 3;
    end loop;
  end if;

  -- Served by the primary key of fact: what was recorded since the caller looked.
  if _condition_after > head_before and outcomes[1] = 0 then
    outcomes[1] := 6;
  elsif _condition_after is not null and outcomes[1] = 0 then
    select f.position into blocker
    from fact f
    -- `offset 0` keeps this a lookup per fact.
    cross join lateral (select stream.id from stream where stream.number = f.stream offset 0) as s
    where f.store = _store and f.position > _condition_after and f.tenant = _tenant and exists (
      select from jsonb_to_recordset(_condition_filters) as c(
        type text, stream text, category text, correlation_id text, causation_id text, metadata jsonb
      )
      where (c.type is null or f.type ~ c.type)
        and (c.stream is null or s.id = c.stream)
        and (c.category is null or split_part(s.id, '-', 1) = c.category)
        and (c.correlation_id is null or coalesce(f.correlation_id, f.event_id::text) = c.correlation_id)
        and (c.causation_id is null or f.causation_id = c.causation_id)
        and (c.metadata is null or not exists (
          select from jsonb_each(c.metadata) as m(key, value) where f.metadata::jsonb -> m.key is distinct from m.value
        ))
    )
    order by f.position
    limit 1;
    if blocker is not null then outcomes[1] := 4; end if;
  end if;

  -- Served by stream_id, and for the last version by fact_version. A new stream gets its number here.
  select
    array_agg(coalesce(t.number, nextval('stream_number_seq')) order by s.n), array_agg(t.number is not null order by s.n),
    array_agg(coalesce(t.closed, false) order by s.n), array_agg(coalesce(t.version, 0) order by s.n)
  into numbers, known, closed, versions
  from (select unnest(_streams) as id, generate_subscripts(_streams, 1) as n) as s
  left join lateral (
    -- `offset 0` keeps this a lookup per stream, whatever the planner believes of the table's size.
    select
      stream.number, stream.state <> 'open' as closed,
      (select f.version from fact f where f.stream = stream.number order by f.version desc limit 1) as version
    from stream where stream.store = _store and stream.tenant = _tenant and stream.id = s.id offset 0
  ) as t on true;

  -- Where every slice is of a stream of its own, none has to wait for the judgement of another.
  if cardinality(_streams) = slices and not 0 <> any (outcomes) then
    select array_agg(s.version + s.count order by s.n) into versions_after
    from (
      select
        generate_subscripts(_slice_count, 1) as n, unnest(_slice_expected) as expected, unnest(_slice_count) as count,
        unnest(versions) as version, unnest(closed) as closed
    ) as s
    having bool_and(
      (s.expected = s.version or s.expected = -2 or (s.expected = -1 and s.version > 0)) and not (s.closed and s.count > 0)
    );
    if versions_after is not null then
      bases := versions;
      versions := versions_after;
      accepted := cardinality(_event_id);
      first := slices + 1;
    end if;
  end if;

  while first <= slices loop
    append := _slice_append[first];
    facts := 0;
    past := first;
    while past <= slices and _slice_append[past] = append loop
      stream_number := _slice_stream[past];
      bases[past] := versions[stream_number];
      facts := facts + _slice_count[past];
      if outcomes[append] = 0 then
        if not (
          _slice_expected[past] = versions[stream_number]
          or _slice_expected[past] = -2
          or (_slice_expected[past] = -1 and versions[stream_number] > 0)
        ) then
          outcomes[append] := 1;
          conflicts[append] := past;
          actuals[append] := versions[stream_number];
        elsif closed[stream_number] and _slice_count[past] > 0 then
          outcomes[append] := 5;
          conflicts[append] := past;
        end if;
      end if;
      past := past + 1;
    end loop;
    if outcomes[append] = 0 then
      accepted := accepted + facts;
      if refused > 0 then offsets[append] := head_before - refused; end if;
      for i in first .. past - 1 loop
        versions[_slice_stream[i]] := bases[i] + _slice_count[i];
      end loop;
    else
      refused := refused + facts;
    end if;
    first := past;
  end loop;

  if accepted = 0 then
    scope := set_config('strata.tenant', outside, true);
    return;
  end if;

  if cardinality(_valid_to) > 0 and exists (
    select from unnest(_fact_slice, _valid_from, _valid_to) as f(slice, valid_from, valid_to)
    where f.valid_to <= coalesce(f.valid_from, at) and outcomes[_slice_append[f.slice]] = 0
  ) then
    raise check_violation using message = 'The period would end before it begins', constraint = 'fact_validity';
  end if;

  insert into stream (number, store, tenant, id) overriding system value
  select s.number, _store, _tenant, s.id
  from unnest(numbers, _streams, known, versions) as s(number, id, known, version)
  where not s.known and s.version > 0;

  insert into fact (
    store, version, position, stream, event_id, schema_version, recorded_at, valid_from, valid_to, tenant, type, data,
    metadata, correlation_id, causation_id, actor, traceparent
  )
  select
    _store, bases[f.slice] + f.ordinal, offsets[_slice_append[f.slice]] + f.number, numbers[_slice_stream[f.slice]],
    f.event_id, f.schema_version, at, coalesce(f.valid_from, at), coalesce(f.valid_to, 'infinity'), _tenant, f.type,
    f.data::json, coalesce(f.metadata, '{}')::json, f.correlation_id, f.causation_id, f.actor, f.traceparent
  from (
    select
      unnest(_fact_slice) as slice, unnest(_fact_ordinal) as ordinal, unnest(_event_id) as event_id, unnest(_type) as type,
      unnest(_schema_version) as schema_version, unnest(_data) as data, unnest(_metadata) as metadata,
      unnest(_correlation_id) as correlation_id, unnest(_causation_id) as causation_id, unnest(_actor) as actor,
      unnest(_traceparent) as traceparent, unnest(_valid_from) as valid_from, unnest(_valid_to) as valid_to,
      generate_subscripts(_event_id, 1) as number
  ) as f
  where refused = 0 or outcomes[_slice_append[f.slice]] = 0;

  if cardinality(_key) > 0 then
    insert into idempotency_key (store, tenant, key, fingerprint, answer, position, recorded_at)
    select _store, _tenant, k.key, k.fingerprint, k.answer::json, offsets[k.append] + k.last, at
    from unnest(_key_append, _key, _key_fingerprint, _key_answer, _key_last) as k(append, key, fingerprint, answer, last)
    where outcomes[k.append] = 0;
  end if;

  update store s set head = head_before + accepted, head_at = at where s.id = _store;
  scope := set_config('strata.tenant', outside, true);
end
$$;
