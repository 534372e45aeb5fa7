-- How much of each rate limit is used up. Unlogged: nobody waits for a disk to be told that a call may pass. After a crash
-- of the server, and on a standby that takes over, the tables are empty, and every key has its burst once more.

-- A row that has rested says no more than none would, and is removed by and by.
create unlogged table rate_limit (
  -- The limit and what it is asked for: "per-user:ada".
  key text collate "C" primary key,
  -- When it was last written, in nanoseconds since 1970.
  at bigint not null,
  -- For each of the classes P0 to P3, when everything it counts will have come back; the last is the latest.
  arrivals bigint[] not null check (cardinality(arrivals) = 4)
) with (fillfactor = 50);

-- Requests that have paid, so that one that is sent again does not pay twice.
create unlogged table rate_limit_payment (
  request text collate "C" not null,
  key text collate "C" not null,
  at bigint not null,
  primary key (request, key)
);

create index rate_limit_payment_at on rate_limit_payment (at);

create function rate_limit_clock() returns bigint language sql volatile as $$
  select (extract(epoch from clock_timestamp()) * 1000000)::bigint * 1000
$$;

-- Where every key stands at a time; the arithmetic is that of Gcra.ts. Stable and without settings, so it becomes part of the
-- statement that asks. Accounts are found by rate_limit_pkey, payments by rate_limit_payment_pkey.
create function rate_limit_levels(
  _keys text[], _costs bigint[], _tolerances bigint[], _priority integer, _request text, _now bigint
) returns table (key text, number bigint, shift bigint, cost bigint, debt bigint, lack bigint) language sql stable as $$
  with asked as (
    select a.key, a.number, a.tolerance, case when p.key is null then a.cost else 0 end as cost, p.key is not null as paid
    from unnest(_keys, _costs, _tolerances) with ordinality as a (key, cost, tolerance, number)
    left join rate_limit_payment p on p.request = _request and p.key = a.key
  )
  select a.key, a.number, moved.shift, a.cost, held.debt,
    case when a.paid then 0 else greatest(held.debt + a.cost - a.tolerance, 0) end
  from asked a
  left join rate_limit r on r.key = a.key
  -- A clock that was set back takes what is owed along.
  cross join lateral (select coalesce(least(_now - r.at, 0), 0)) as moved (shift)
  cross join lateral (select greatest(coalesce(r.arrivals[_priority] + moved.shift - _now, 0), 0)) as held (debt)
$$;

-- Takes tokens of every key, or of none. One row for each key, in the order given: what it owes afterwards, and how long it
-- makes the tokens wait, both in nanoseconds. They were taken when nothing waits.
--
-- What has been taken already may be enough to refuse, and then nothing is locked and nothing written: a flood of calls that
-- are refused waits for nobody. Otherwise every key gets a row and is locked, in the order of the keys, so that two calls
-- never wait for each other. The clock is read again when all of them are held: it never shows less than what the
-- last call has written, unless it was set.
create function take_rate_limits(
  -- Each of them once.
  _keys text[],
  -- Nanoseconds that the tokens cost, and those that may be owed, for each key.
  _costs bigint[],
  _tolerances bigint[],
  -- 1 for P0 to 4 for P3.
  _priority integer,
  -- Names a request that may be sent again; null for none.
  _request text,
  -- The time to judge by. Null: the database's.
  _now bigint
) returns table (owed bigint, wait bigint) language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  clock bigint := coalesce(_now, rate_limit_clock());
  name text;
begin
  return query
  with level as materialized (
    select l.* from rate_limit_levels(_keys, _costs, _tolerances, _priority, _request, clock) l
  )
  select l.debt, l.lack from level l
  where (select max(v.lack) > 0 and min(v.shift) = 0 from level v)
  order by l.number;
  if found then return; end if;

  -- One after the other, so that whoever waits, be it for a row or for one that is being inserted, holds lower keys only.
  foreach name in array array(select asked.key from unnest(_keys) as asked (key) order by asked.key collate "C") loop
    loop
      perform from rate_limit r where r.key = name for no key update;
      exit when found;
      insert into rate_limit (key, at, arrivals) values (name, 0, '{0, 0, 0, 0}') on conflict do nothing;
      exit when found;
    end loop;
  end loop;
  clock := coalesce(_now, rate_limit_clock());

  return query
  with level as materialized (
    select l.* from rate_limit_levels(_keys, _costs, _tolerances, _priority, _request, clock) l
  ), verdict as materialized (
    select bool_and(l.lack = 0) as passes from level l
  ), written as (
    -- No index has the columns that change, so the rows stay in their pages.
    update rate_limit r set at = clock, arrivals = array(
      select case
        when v.passes and a.class >= _priority then greatest(a.arrival + l.shift, clock) + l.cost
        else a.arrival + l.shift
      end
      from unnest(r.arrivals) with ordinality as a (arrival, class)
      order by a.class
    )
    from level l, verdict v
    where r.key = l.key and (l.shift < 0 or (v.passes and l.cost > 0))
  ), remembered as (
    insert into rate_limit_payment (request, key, at)
    select _request, l.key, clock from level l, verdict v
    where _request is not null and v.passes and l.cost > 0
    on conflict do nothing
  )
  select l.debt + case when v.passes then l.cost else 0 end, l.lack
  from level l, verdict v
  order by l.number;
end
$$;
