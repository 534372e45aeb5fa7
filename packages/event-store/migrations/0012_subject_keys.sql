-- Personal data: the keys under which what facts hold of a person is sealed, and the erasures that destroyed one.
--
-- A subject is named by a digest, in these tables and in facts: 128 bits of SHA-256 over tenant and subject. No table holds what
-- unwraps a key.

-- One key for each subject of a tenant, while there is one. A row is inserted, wrapped anew, and deleted; nothing else.
create table subject_key (
  tenant text collate "C" not null,
  subject text collate "C" not null,
  -- No other key ever has it: facts name the key they are sealed under by it.
  number bigint generated always as identity,
  -- The id of the master key that wraps it.
  master text not null,
  wrapped bytea not null,
  made_at timestamptz not null default clock_timestamp(),
  primary key (tenant, subject),
  constraint subject_key_tenant check (tenant <> '')
);

-- Who asked for an erasure, why and when. It tells what is erased from what is lost, so a row is never changed or removed.
create table subject_erasure (
  tenant text collate "C" not null,
  subject text collate "C" not null,
  -- subject_key.number; 0 when the subject had none.
  key bigint not null,
  reason text not null,
  actor text not null,
  erased_at timestamptz not null default clock_timestamp(),
  primary key (tenant, subject, key),
  constraint subject_erasure_tenant check (tenant <> '')
);

-- Which streams hold, or held, something of a subject: one row for each, however many facts there are. Written before the first of
-- them, so a stream may be here in which there is nothing.
create table subject_stream (
  tenant text collate "C" not null,
  subject text collate "C" not null,
  store integer not null,
  -- stream.id
  stream text collate "C" not null,
  primary key (tenant, subject, store, stream),
  constraint subject_stream_tenant check (tenant <> '')
);

create policy subject_key_of_tenant on subject_key
using (tenant = (select tenant_in_scope()) or (select all_tenants_in_scope()))
with check (tenant = (select tenant_in_scope()));

create policy subject_erasure_of_tenant on subject_erasure
using (tenant = (select tenant_in_scope()) or (select all_tenants_in_scope()))
with check (tenant = (select tenant_in_scope()));

create policy subject_stream_of_tenant on subject_stream
using (tenant = (select tenant_in_scope()) or (select all_tenants_in_scope()))
with check (tenant = (select tenant_in_scope()));

alter table subject_key enable row level security, force row level security;
alter table subject_erasure enable row level security, force row level security;
alter table subject_stream enable row level security, force row level security;

-- The keys of subjects of a tenant, each a different one. Who has none gets the candidate that is wrapped for it.
--
-- Waits for another transaction that makes or destroys the key of one of them. In the order of subjects, so two who make the same
-- keys wait for each other one way. Served by the primary key of subject_key.
create function hold_subject_keys(_tenant text, _subjects text[], _masters text[], _wrapped bytea[])
returns table (subject text, number bigint, master text, wrapped bytea) language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  outside constant text := current_setting('strata.tenant', true);
  scope text := set_config('strata.tenant', _tenant, true);
  held subject_key[];
begin
  loop
    -- Each statement sees what was committed before it: also a key that was destroyed since the one before.
    select array_agg(k) into held
    from unnest(_subjects) as asked(subject), subject_key k
    where k.tenant = _tenant and k.subject = asked.subject;
    exit when coalesce(cardinality(held), 0) = cardinality(_subjects);
    insert into subject_key (tenant, subject, master, wrapped)
    select _tenant, u.subject, u.master, u.wrapped
    from unnest(_subjects, _masters, _wrapped) as u(subject, master, wrapped)
    where not exists (select from subject_key k where k.tenant = _tenant and k.subject = u.subject)
    order by u.subject
    on conflict on constraint subject_key_pkey do nothing;
  end loop;
  return query select h.subject, h.number, h.master, h.wrapped from unnest(held) as h;
  scope := set_config('strata.tenant', outside, true);
end
$$;

-- Destroys the key of a subject, records who asked for it, and tells it in the log of each store that holds something of the
-- subject: a fact `$subject.erased` in the stream `$subject-<digest>`. Snapshots of the streams that hold something go too, since
-- they may hold it as well. Where there is no key, nothing is destroyed: the last erasure is the answer, or a first one
-- is recorded that destroys nothing.
--
-- Locks the key's row, then the rows of stores in the order of their ids, until the transaction ends. So it is to be the
-- transaction's only statement.
create function erase_subject(
  _tenant text,
  _subject text,
  -- Of the facts that tell it: one in each store.
  _event_id uuid,
  _reason text,
  _actor text,
  _traceparent text,
  out key bigint,
  out recorded_reason text,
  out recorded_actor text,
  out at timestamptz,
  -- It was recorded before.
  out again boolean,
  out stores text[],
  out positions bigint[]
) language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  outside constant text := current_setting('strata.tenant', true);
  scope text := set_config('strata.tenant', _tenant, true);
  about constant text := '$subject-' || _subject;
  log record;
  number bigint;
  place integer;
  next_position bigint;
  told_at timestamptz;
begin
  again := false;
  stores := '{}';
  positions := '{}';
  delete from subject_key k where k.tenant = _tenant and k.subject = _subject returning k.number into key;
  if key is null then
    -- Served by the primary key of subject_erasure, backwards.
    select e.key, e.reason, e.actor, e.erased_at into key, recorded_reason, recorded_actor, at
    from subject_erasure e where e.tenant = _tenant and e.subject = _subject
    order by e.key desc limit 1;
    again := key is not null;
  end if;

  if not again then
    key := coalesce(key, 0);
    recorded_reason := _reason;
    recorded_actor := _actor;
    insert into subject_erasure as e (tenant, subject, key, reason, actor)
    values (_tenant, _subject, key, _reason, _actor)
    on conflict on constraint subject_erasure_pkey do nothing
    returning e.erased_at into at;
    at := coalesce(at, clock_timestamp());
  end if;

  if not again and key > 0 then
    -- Each store by the primary key of subject_stream.
    for log in
      select s.id, s.name from store s
      where exists (
        select from subject_stream p where p.tenant = _tenant and p.subject = _subject and p.store = s.id
      )
      order by s.id
    loop
      delete from snapshot n using subject_stream p
      where p.tenant = _tenant and p.subject = _subject and p.store = log.id
        and n.store = p.store and n.tenant = p.tenant and n.stream = p.stream;

      select s.head + 1, greatest(clock_timestamp(), s.head_at + interval '1 microsecond') into next_position, told_at
      from store s where s.id = log.id for no key update;
      select s.number into number from stream s where s.store = log.id and s.tenant = _tenant and s.id = about;
      if number is null then
        insert into stream as s (store, tenant, id) values (log.id, _tenant, about) returning s.number into number;
      end if;
      -- Served by fact_version.
      select coalesce(max(f.version), 0) + 1 into place from fact f where f.stream = number;
      insert into fact (
        store, version, position, stream, event_id, schema_version, recorded_at, valid_from, valid_to, tenant, type, data,
        metadata, actor, traceparent
      ) values (
        log.id, place, next_position, number, _event_id, 1, told_at, told_at, 'infinity', _tenant, '$subject.erased',
        json_build_object('subject', _subject, 'key', key, 'reason', _reason), '{}', _actor, _traceparent
      );
      update store s set head = next_position, head_at = told_at where s.id = log.id;
      stores := stores || log.name;
      positions := positions || next_position;
    end loop;
  end if;
  scope := set_config('strata.tenant', outside, true);
end
$$;
