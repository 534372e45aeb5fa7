-- Questions about what facts hold, and whether the summaries of the log still say what the log says.

-- True when what stands in the data at a path compares so with a value: numbers with numbers and texts with texts, these by
-- their bytes; `equal` any two values. Data that `jsonb` cannot hold, with NUL or half of a surrogate pair, fits nothing.
create function fact_data_fits(_data json, _path text[], _is text, _value jsonb) returns boolean language plpgsql immutable
as $$
declare
  there jsonb;
  step text;
begin
  if position('\u' in _data::text) = 0 then
    there := _data::jsonb;
  else
    begin
      there := _data::jsonb;
    exception when untranslatable_character or invalid_text_representation then
      return false;
    end;
  end if;
  foreach step in array _path loop
    there := case jsonb_typeof(there)
      when 'object' then there -> step
      when 'array' then case when step ~ '^(0|[1-9][0-9]{0,8})$' then there -> step::integer end
    end;
  end loop;
  if there is null then return false; end if;
  if _is = 'equal' then return there = _value; end if;
  if jsonb_typeof(there) <> jsonb_typeof(_value) then return false; end if;
  if jsonb_typeof(there) = 'number' then
    return case _is
      when 'above' then there::numeric > _value::numeric
      when 'atLeast' then there::numeric >= _value::numeric
      when 'below' then there::numeric < _value::numeric
      when 'atMost' then there::numeric <= _value::numeric
    end;
  end if;
  return case _is
    when 'above' then (there #>> '{}') collate "C" > (_value #>> '{}')
    when 'atLeast' then (there #>> '{}') collate "C" >= (_value #>> '{}')
    when 'below' then (there #>> '{}') collate "C" < (_value #>> '{}')
    when 'atMost' then (there #>> '{}') collate "C" <= (_value #>> '{}')
  end;
end
$$;

-- The chunks, from one number to before another, that say something else than their facts: made of the facts by themselves
-- and not as summarize_facts makes them, so that a mistake there shows too. Of all tenants.
create function fact_chunk_drift(_store integer, _first bigint, _past bigint) returns table (number bigint, what text)
language plpgsql stable
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $$
begin
  return query
  with facts as materialized (
    select (f.position - 1) / 256 as chunk, f.*, split_part(s.id, '-', 1) as category
    from fact f, lateral (select stream.id from stream where stream.number = f.stream offset 0) as s
    where f.store = _store and f.position > _first * 256 and f.position <= _past * 256
  ), labels as (
    select f.chunk, l.label
    from facts f, lateral (
      values
        (fact_label(_store, f.tenant, 'tenant', '')), (fact_label(_store, f.tenant, 'category', f.category)),
        (fact_label(_store, f.tenant, 'type', f.type)), (fact_label(_store, '', 'category', f.category)),
        (fact_label(_store, '', 'type', f.type)), (fact_label(_store, f.tenant, 'correlation', f.correlation_id)),
        (fact_label(_store, f.tenant, 'causation', f.causation_id))
    ) as l(label)
    union
    select f.chunk, jsonb_hash_extended(m.value, fact_label(_store, f.tenant, 'metadata', m.key))
    from facts f, jsonb_each(f.metadata::jsonb) as m
  ), expected as (
    select
      f.chunk, min(f.valid_from) as first_from, max(f.valid_from) as last_from, max(f.valid_to) as last_to, (
        select array_agg(distinct fact_label_in(f.chunk / 4096, l.label)) from labels l
        where l.chunk = f.chunk and l.label is not null
      ) as labels
    from facts f
    group by f.chunk
  )
  select coalesce(e.chunk, c.number), case
    when c.number is null then 'missing'
    when e.chunk is null then 'without facts'
    when c.labels @> e.labels and e.labels @> c.labels then 'validity'
    else 'labels'
  end
  from expected e
  full join (select * from fact_chunk f where f.store = _store and f.number >= _first and f.number < _past) as c
    on c.number = e.chunk
  where c.number is null or e.chunk is null
    or (c.first_from, c.last_from, c.last_to) is distinct from (e.first_from, e.last_from, e.last_to)
    or not (c.labels @> e.labels and e.labels @> c.labels);
end
$$;
