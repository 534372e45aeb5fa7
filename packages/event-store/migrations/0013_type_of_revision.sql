-- A correction may say of which type the fact is that it corrects: the data of one event are not those of another.

-- Servers of the version before call the new one without a type.
drop function revise_fact(
  integer, text, uuid, boolean, uuid, text, integer, text, timestamptz, timestamptz, text, text, text, text, text, integer
);

-- Adds a correction or a retraction at the end of the chain that `_revises` belongs to, whichever member it is.
-- What is null stays as it was. A retraction that names a retraction restores the fact, and nothing else: it is refused when the
-- chain does not end with the one it names.
--
-- Locks the store's row until the transaction ends, like append_facts, so it is to be the transaction's last statement:
-- that makes chains without forks out of revisions that come at once.
create function revise_fact(
  _store integer,
  _tenant text,
  _revises uuid,
  _retract boolean,
  _event_id uuid,
  _data text,
  _schema_version integer,
  _metadata text,
  _valid_from timestamptz,
  _valid_to timestamptz,
  _reason text,
  _actor text,
  _correlation_id text,
  _causation_id text,
  _traceparent text,
  _expected integer,
  -- The type that the fact is taken to have.
  _type text default null,
  -- written; unknown: no such fact; seen: the revision's own id is taken; system: the store's own facts are not revised;
  -- conflict: the chain does not end with `_expected`; retracted: it ends with a retraction that is not the one named;
  -- superseded: it does not end with the retraction to be retracted; validity: the period would end before it begins; closed: the
  -- stream takes no facts; type: the fact is not a `_type`, and `type` says what it is.
  out outcome text,
  -- The last member of the chain: the new revision when it was written.
  out last_event_id uuid,
  out last_revision integer,
  out last_position bigint,
  out first_event_id uuid,
  out stream text,
  out version integer,
  out retracted boolean,
  out at timestamptz,
  out type text
) language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  outside constant text := current_setting('strata.tenant', true);
  scope text := set_config('strata.tenant', _tenant, true);
  head_before bigint;
  named fact;
  chain bigint;
  last fact;
  closed boolean;
begin
  <<revising>>
  begin
    select s.head, greatest(clock_timestamp(), s.head_at + interval '1 microsecond') into head_before, at
    from store s where s.id = _store for no key update;

    -- Served by fact_event_id; see append_fact for `+ 0`.
    if exists (select from fact f where f.event_id = _event_id and f.store + 0 = _store and f.tenant = _tenant) then
      outcome := 'seen';
      exit revising;
    end if;
    select * into named from fact f where f.event_id = _revises and f.store + 0 = _store and f.tenant = _tenant;
    if not found then
      outcome := 'unknown';
      exit revising;
    end if;

    -- Served by fact_chain, under row-level security as well, where `coalesce` would not be taken for an index.
    chain := coalesce(named.origin, named.position);
    select * into last from fact f
    where f.origin = chain and f.store + 0 = _store and f.revision > 0
    order by f.revision desc
    limit 1;
    if not found then last := named; end if;

    first_event_id := coalesce(named.revises, named.event_id);
    last_event_id := last.event_id;
    last_revision := last.revision;
    last_position := last.position;
    type := last.type;
    select s.id, s.state <> 'open' into stream, closed from stream s where s.number = last.stream;
    if starts_with(stream, '$') then
      outcome := 'system';
      exit revising;
    end if;
    if last.type <> _type then
      outcome := 'type';
      exit revising;
    end if;
    if last.revision <> _expected then
      outcome := 'conflict';
      exit revising;
    end if;
    if last.retracted and not (_retract and _revises = last.event_id) then
      outcome := 'retracted';
      exit revising;
    end if;
    if _retract and named.retracted and named.event_id <> last.event_id then
      outcome := 'superseded';
      exit revising;
    end if;
    if closed then
      outcome := 'closed';
      exit revising;
    end if;
    if coalesce(_valid_to, last.valid_to) <= coalesce(_valid_from, last.valid_from) then
      outcome := 'validity';
      exit revising;
    end if;

    outcome := 'written';
    retracted := _retract and not last.retracted;
    last_event_id := _event_id;
    last_revision := last.revision + 1;
    last_position := head_before + 1;
    -- Served by fact_version.
    select f.version + 1 into version from fact f where f.stream = last.stream order by f.version desc limit 1;
    insert into fact (
      store, version, position, stream, event_id, schema_version, revision, recorded_at, valid_from, valid_to, retracted,
      tenant, type, data, metadata, correlation_id, causation_id, actor, traceparent, origin, revises, reason
    ) values (
      _store, version, last_position, last.stream, _event_id, coalesce(_schema_version, last.schema_version), last_revision,
      at, coalesce(_valid_from, last.valid_from), coalesce(_valid_to, last.valid_to), retracted, _tenant, last.type,
      coalesce(_data::json, last.data), coalesce(_metadata::json, last.metadata),
      coalesce(_correlation_id, last.correlation_id, last.event_id::text), coalesce(_causation_id, last.causation_id),
      _actor, _traceparent, coalesce(last.origin, last.position), first_event_id, _reason
    );
    update store s set head = last_position, head_at = at where s.id = _store;
  end;
  scope := set_config('strata.tenant', outside, true);
end
$$;
