-- How facts reach a generation: by its subscription, or, where the projection is inline, in the transactions that write them. `joining`
-- is one of an inline projection that its subscription fills, since it has not caught up; then appends take over, under the
-- lock of the store's row, under which alone this column changes to and from `inline`.
alter table projection_generation
  add column applied text not null default 'subscription' check (applied in ('subscription', 'joining', 'inline'));

-- What every append asks.
create index projection_generation_inline on projection_generation (store) where applied = 'inline';
