-- Summaries are of all tenants in one row, and no policy can keep that apart: a condition of one would be asked before the labels,
-- and so without their index. So the application's role has no right on fact_chunk, and asks these functions, which have the
-- owner's: facts they read by the policies that bind the owner too.

-- As in 0006_chunks.sql, and only for a tenant in scope that is among the labels, or for all tenants in scope.
create or replace function fact_chunks(
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
security definer
set search_path from current
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  first constant bigint := (_low - 1) / 256;
  last constant bigint := (_high - 1) / 256;
  tenant constant text := tenant_in_scope();
  wanted bigint[];
begin
  if not all_tenants_in_scope()
    and not coalesce(_labels @> array[fact_label(_store, tenant, 'tenant', '')], false)
  then
    raise exception 'Summaries are read for the tenant in scope' using errcode = 'insufficient_privilege';
  end if;
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

alter function fact_summarized(integer) security definer set search_path from current;
alter function summarize_facts(integer) security definer set search_path from current;
alter function fact_chunk_drift(integer, bigint, bigint) security definer set search_path from current;
