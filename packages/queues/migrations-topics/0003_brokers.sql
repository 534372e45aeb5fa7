-- How far the streams of brokers were taken in, by the name of who takes them.
create table broker_position (
  consumer text collate "C" primary key,
  -- In the words of the broker; null for its beginning.
  position text,
  at timestamptz not null default clock_timestamp()
);
