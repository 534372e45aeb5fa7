-- Filled by the projection category-counts: how many streams and facts each category of a tenant has.
create table category_count (
  store text not null,
  tenant text collate "C" not null,
  category text collate "C" not null,
  streams bigint not null,
  facts bigint not null,
  primary key (store, tenant, category)
) with (fillfactor = 50);
