-- As it was, but that it refuses isolation levels in which a table that was waited for is seen as it was before.
--
-- Takes back the space of tables all of whose rows are relayed, and has another one written to when this one has grown. The caller is
-- the only one who deletes rows. Waits for nobody.
create or replace function rotate_outbox(_bytes bigint) returns void language plpgsql
security definer
set search_path from current
set lock_timeout = '20ms'
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  writing smallint;
  each smallint;
  filled boolean;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'rotate_outbox: expected the isolation level read committed, got %', current_setting('transaction_isolation')
      using errcode = 'feature_not_supported';
  end if;
  select s.slot into writing from outbox_slot s;
  foreach each in array array[0, 1, 2]::smallint[] loop
    continue when each = writing or pg_relation_size(format('outbox_%s', each)::regclass) = 0;
    begin
      -- What is left is at the end: before that are the remains of what was relayed, which may be millions of rows.
      execute format('select exists (select from outbox_%s o order by o.id desc limit 1)', each) into filled;
      continue when filled;
      -- Waits for whoever has inserted and not committed.
      execute format('lock table outbox_%s in access exclusive mode', each);
      execute format('select exists (select from outbox_%s o order by o.id desc limit 1)', each) into filled;
      if not filled then
        execute format('truncate outbox_%s', each);
      end if;
    exception when lock_not_available then
      null;
    end;
  end loop;
  -- Most of it is apart from the rows.
  if pg_total_relation_size(format('outbox_%s', writing)::regclass) >= _bytes then
    foreach each in array array[0, 1, 2]::smallint[] loop
      if each <> writing and pg_relation_size(format('outbox_%s', each)::regclass) = 0 then
        update outbox_slot set slot = each;
        return;
      end if;
    end loop;
  end if;
end
$$;
