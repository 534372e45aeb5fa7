-- Whether a table has a row. Looked for at its end first: what is claimed was written first, and its remains may be millions of rows.
create function has_rows(_table regclass) returns boolean language plpgsql
as $$
declare
  blocks constant bigint := pg_relation_size(_table) / current_setting('block_size')::bigint;
  last constant bigint := greatest(0, blocks - 64);
  filled boolean;
begin
  execute format('select exists (select from %s where ctid >= %L::tid)', _table, format('(%s,0)', last)) into filled;
  if not filled and last > 0 then
    execute format('select exists (select from %s)', _table) into filled;
  end if;
  return filled;
end
$$;

-- As it was, but for has_rows.
--
-- Called by one at a time. Empties tables that have no row any more, and has messages written to another one when one has grown. A table that some
-- transaction has written to and not committed is left for the next time. As the owner of the tables, for truncating passes by
-- row-level security, which these tables do not have, and is granted to nobody.
create or replace function rotate_messages(_bytes bigint) returns void language plpgsql
security definer
set search_path from current
set lock_timeout = '20ms'
as $$
declare
  writing smallint;
  each smallint;
  filled boolean;
begin
  select s.slot into writing from message_slot s;
  foreach each in array array[0, 1, 2]::smallint[] loop
    continue when each = writing;
    begin
      if pg_relation_size(format('message_%s', each)::regclass) > 0 then
        filled := has_rows(format('message_%s', each)::regclass);
        if not filled then
          execute format('lock table message_%s in access exclusive mode', each);
          filled := has_rows(format('message_%s', each)::regclass);
          if not filled then
            execute format('truncate message_%s', each);
          end if;
        end if;
      end if;
      if pg_relation_size(format('message_lease_%s', each)::regclass) > 0 then
        filled := has_rows(format('message_lease_%s', each)::regclass);
        if not filled then
          execute format('lock table message_lease_%s in access exclusive mode', each);
          filled := has_rows(format('message_lease_%s', each)::regclass);
          if not filled then
            execute format('truncate message_lease_%s', each);
          end if;
        end if;
      end if;
    exception when lock_not_available then
      null;
    end;
  end loop;
  if pg_relation_size(format('message_%s', writing)::regclass) >= _bytes
    or pg_total_relation_size(format('message_lease_%s', writing)::regclass) >= _bytes then
    foreach each in array array[0, 1, 2]::smallint[] loop
      if each <> writing and pg_relation_size(format('message_%s', each)::regclass) = 0
        and pg_relation_size(format('message_lease_%s', each)::regclass) = 0 then
        update message_slot set slot = each;
        return;
      end if;
    end loop;
  end if;
end
$$;
