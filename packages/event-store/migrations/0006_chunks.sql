-- Summaries of the log, made behind the append's back, so that reads over all streams look only where facts may be.
--
-- A *chunk* is 256 positions: the nth one, from 0, ends at position 256 * (n + 1). Chunks are summarized in order, each once
-- and for good, when all of their facts are there. What stands after the last one is looked at itself, so an answer is the
-- same whatever is summarized. Everything here can be emptied, and is made again.

create table fact_chunk (
  store integer not null,
  number bigint not null,
  -- Of its facts: the first and the last beginning of validity, and the last end.
  first_from timestamptz not null,
  last_from timestamptz not null,
  last_to timestamptz not null,
  -- See fact_label; each of them once.
  labels bigint[] not null,
  primary key (store, number)
-- Rows stay short when the labels, which nobody reads but their index, are put elsewhere.
) with (toast_tuple_target = 128);
alter table fact_chunk alter labels set storage external;

-- Entries go to the tree at once: a list of pending ones would be searched by every read.
create index fact_chunk_labels on fact_chunk using gin (labels) with (fastupdate = off);

-- What the summarized facts are, by number: `streams` began with this type. Summed up, and the rest of the log counted, it
-- tells what a category holds.
create table fact_count (
  store integer not null,
  tenant text collate "C" not null,
  category text collate "C" not null,
  type text collate "C" not null,
  streams bigint not null,
  facts bigint not null,
  primary key (store, tenant, category, type)
) with (fillfactor = 50);

-- What a filter asks for, as a number: of a tenant, or with '' of all of them. A chunk that has it may hold such facts, one
-- that has it not holds none.
create function fact_label(_store integer, _tenant text, _kind text, _value text) returns bigint language sql immutable
return hashtextextended(_kind || chr(31) || _tenant || chr(31) || _value, _store);

-- A label as the chunks of one *segment* have it, which is 4,096 chunks. So the index grows at one place at a time, and a read
-- goes through the log by segments and ends where it has enough, however many chunks have the label. 40 bits tell labels apart.
create function fact_label_in(_segment bigint, _label bigint) returns bigint language sql immutable
return (_segment << 40) | (_label & 1099511627775);

-- Summarizes the next chunks, four at most, and tells up to which position all are; null when another process is at it.
create function summarize_facts(
  _store integer,
  out summarized bigint,
  out head bigint
) language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $$
declare
  first bigint;
  past bigint;
begin
  -- Held until the transaction ends, so that whoever comes next sees these chunks. Appends never wait for it.
  if not pg_try_advisory_xact_lock(hashtextextended('strata.fact_chunk', _store)) then return; end if;
  select s.head into head from store s where s.id = _store;
  -- Served by the primary key of fact_chunk.
  select coalesce((select c.number + 1 from fact_chunk c where c.store = _store order by c.number desc limit 1), 0) into first;
  past := least(head / 256, first + 4);
  summarized := past * 256;
  if past <= first then return; end if;

  -- Served by the primary keys of fact and stream.
  with facts as materialized (
    select
      (f.position - 1) / 256 as chunk, f.tenant, f.type, f.stream, f.version = 1 as first, f.correlation_id, f.causation_id,
      f.metadata::text collate "C" as metadata, f.valid_from, f.valid_to
    from fact f
    where f.store = _store and f.position > first * 256 and f.position <= past * 256
  ), kinds as materialized (
    select k.chunk, k.tenant, split_part(s.id, '-', 1) as category, k.type, sum(k.facts) as facts, sum(k.streams) as streams
    from (
      select f.chunk, f.tenant, f.type, f.stream, count(*) as facts, count(*) filter (where f.first) as streams
      from facts f
      group by f.chunk, f.tenant, f.type, f.stream
    ) as k, lateral (
      select stream.id from stream where stream.number = k.stream offset 0
    ) as s
    group by k.chunk, k.tenant, category, k.type
  ), labels (chunk, label) as (
    select chunk, fact_label(_store, tenant, 'tenant', '') from kinds
    union select chunk, fact_label(_store, tenant, 'category', category) from kinds
    union select chunk, fact_label(_store, tenant, 'type', type) from kinds
    -- For who reads the facts of all tenants.
    union select chunk, fact_label(_store, '', 'category', category) from kinds
    union select chunk, fact_label(_store, '', 'type', type) from kinds
    union select chunk, fact_label(_store, tenant, 'correlation', correlation_id) from facts where correlation_id is not null
    union select chunk, fact_label(_store, tenant, 'causation', causation_id) from facts where causation_id is not null
    union select m.chunk, jsonb_hash_extended(entry.value, fact_label(_store, m.tenant, 'metadata', entry.key))
    from (select distinct chunk, tenant, metadata from facts) as m, jsonb_each(m.metadata::jsonb) as entry
  ), counted as (
    insert into fact_count as c (store, tenant, category, type, streams, facts)
    select _store, tenant, category, type, sum(streams), sum(facts) from kinds group by tenant, category, type
    on conflict (store, tenant, category, type) do update
    set streams = c.streams + excluded.streams, facts = c.facts + excluded.facts
  )
  insert into fact_chunk (store, number, first_from, last_from, last_to, labels)
  select _store, b.chunk, b.first_from, b.last_from, b.last_to, l.labels
  from (
    select chunk, min(valid_from) as first_from, max(valid_from) as last_from, max(valid_to) as last_to
    from facts
    group by chunk
  ) as b
  join (
    select chunk, array_agg(distinct fact_label_in(chunk / 4096, label)) as labels from labels group by chunk
  ) as l on l.chunk = b.chunk;
end
$$;

-- The chunks within these positions, which are all of one segment, that may hold what is asked for: facts with every label of
-- `_labels` and, unless that is empty, one of `_any`, that begin to hold between `_begins_from` and `_begins_by`, both
-- included, and hold after `_ends_after`; and the chunk of the fact at `_also`. What is null does not restrict. In no order,
-- and some of them more than once.
create function fact_chunks(
  _store integer,
  _low bigint,
  _high bigint,
  _labels bigint[],
  _any bigint[],
  _also bigint,
  _begins_from timestamptz,
  _begins_by timestamptz,
  _ends_after timestamptz
) returns table (number bigint, first_from timestamptz, last_from timestamptz) language plpgsql stable
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  first constant bigint := (_low - 1) / 256;
  last constant bigint := (_high - 1) / 256;
  wanted bigint[];
begin
  if cardinality(_labels || _any) = 0 then
    -- Served by the primary key of fact_chunk.
    return query select c.number, c.first_from, c.last_from
    from fact_chunk c
    where c.store = _store and c.number between first and last
      and (_begins_from is null or c.last_from >= _begins_from) and (_begins_by is null or c.first_from <= _begins_by)
      and (_ends_after is null or c.last_to > _ends_after);
    return;
  end if;
  for wanted in
    select array(select fact_label_in(first / 4096, label) from unnest(_labels || alternative) as label)
    from unnest(case when cardinality(_any) = 0 then _labels[1:1] else _any end) as alternative
  loop
    -- Served by fact_chunk_labels; `+ 0` keeps the planner from the primary key, by which it would read all labels.
    return query select c.number, c.first_from, c.last_from
    from fact_chunk c
    where c.labels @> wanted and c.store + 0 = _store and c.number + 0 between first and last
      and (_begins_from is null or c.last_from >= _begins_from) and (_begins_by is null or c.first_from <= _begins_by)
      and (_ends_after is null or c.last_to > _ends_after);
  end loop;
  if _also between _low and _high then
    return query select c.number, c.first_from, c.last_from
    from fact_chunk c
    where c.store = _store and c.number = (_also - 1) / 256;
  end if;
end
$$;

-- Up to which position the log is summarized. Served by the primary key of fact_chunk.
create function fact_summarized(_store integer) returns bigint language sql stable
return coalesce((select c.number + 1 from fact_chunk c where c.store = _store order by c.number desc limit 1), 0) * 256;

-- Where within these positions, which are all of one segment, the facts may be that are asked for as in fact_chunks: from one
-- position to another, in order. A short way is gone without asking.
create function fact_blocks(
  _store integer,
  _low bigint,
  _high bigint,
  _backwards boolean,
  _labels bigint[],
  _any bigint[],
  _also bigint,
  _begins_from timestamptz,
  _begins_by timestamptz,
  _ends_after timestamptz
) returns table (low bigint, high bigint) language plpgsql stable
set plan_cache_mode = force_generic_plan
as $$
declare
  summarized bigint;
begin
  if _high - _low < 512 then
    return query select _low, _high;
    return;
  end if;
  summarized := least(fact_summarized(_store), _high);
  if _backwards and summarized < _high then
    return query select greatest(summarized + 1, _low), _high;
  end if;
  if _low <= summarized then
    return query
    select greatest(min(c.number) * 256 + 1, _low), least(max(c.number) * 256 + 256, summarized)
    from (
      select f.number, f.number - dense_rank() over (order by f.number) as island
      from fact_chunks(
        _store, _low, summarized, _labels, _any, _also, _begins_from, _begins_by, _ends_after
      ) as f
    ) as c
    group by c.island
    order by case when _backwards then -min(c.number) else min(c.number) end;
  end if;
  if not _backwards and summarized < _high then
    return query select greatest(summarized + 1, _low), _high;
  end if;
end
$$;

-- For a page by validity: moments by which the first 16, 128, 1,024 … chunks begin that may hold what is asked for,
-- or from the last beginnings back. What begins by the first of them is only in those chunks, and in the rest of the log.
create function fact_bounds(
  _store integer,
  _high bigint,
  _backwards boolean,
  _labels bigint[],
  _any bigint[],
  _also bigint,
  _begins_from timestamptz,
  _begins_by timestamptz,
  _ends_after timestamptz
) returns timestamptz[] language sql stable
return array(
  select case when _backwards then c.last_from else c.first_from end
  from (
    select f.first_from, f.last_from, row_number() over (
      order by case when not _backwards then f.first_from end, case when _backwards then f.last_from end desc
    ) as place
    from (select least(fact_summarized(_store), _high) as summarized) as s, lateral (
      select distinct chunk.* from generate_series(0, (s.summarized - 1) / 1048576) as segment, lateral fact_chunks(
        _store, segment * 1048576 + 1, least((segment + 1) * 1048576, s.summarized), _labels, _any, _also, _begins_from,
        _begins_by, _ends_after
      ) as chunk
    ) as f
  ) as c
  where c.place in (16, 128, 1024, 8192, 65536, 524288)
  order by c.place
);

-- The last version of a stream at or before a position, 0 when there is none. Served by fact_version.
create function version_at(_stream bigint, _position bigint) returns integer language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  low integer := 0;
  high integer;
  middle integer;
begin
  select coalesce(max(f.version), 0) into high from fact f where f.stream = _stream;
  while low < high loop
    middle := low + (high - low + 1) / 2;
    if (select f.position from fact f where f.stream = _stream and f.version = middle) <= _position then
      low := middle;
    else
      high := middle - 1;
    end if;
  end loop;
  return low;
end
$$;

-- Who summarizes sees all tenants, and counts for each of them.
create policy fact_count_of_tenant on fact_count
using (tenant = (select tenant_in_scope()) or (select all_tenants_in_scope()))
with check ((select all_tenants_in_scope()));

alter table fact_count enable row level security, force row level security;
