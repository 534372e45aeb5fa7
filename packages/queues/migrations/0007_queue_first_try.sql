-- A message that was claimed and given back before it began has not been tried: the time it has for all its tries begins with the
-- first of them.

-- Puts messages among those that may be claimed. Locks nothing but what it writes.
create or replace function make_ready(_messages queued_message[], _slot smallint) returns void language sql
begin atomic
  insert into message (
    id, sent_at, first_at, queue, priority, attempts, crashes, slot, tenant, type, key, unique_key, correlation_id,
    causation_id, traceparent, headers, data, bytes, stored_at, failures
  )
  select
    m.id, m.sent_at, case when m.attempts > 0 then m.first_at end, m.queue, m.priority, m.attempts, m.crashes, _slot,
    m.tenant, m.type, m.key, m.unique_key, m.correlation_id, m.causation_id, m.traceparent, m.headers, m.data, m.bytes,
    m.stored_at, m.failures
  from unnest(_messages) m;
end;
