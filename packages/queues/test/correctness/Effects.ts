/**
 * What the handlers of these tests do to the database, and what it has in the end.
 */
import { Postgres } from "@strata/postgres/Postgres"
import type { Stats } from "@strata/queues/QueueCatalog"
import * as Queues from "@strata/queues/Queues"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { Kept, Remains } from "./invariants.ts"

/** Nothing in these tables forbids what is wrong, or nobody would see it. */
export const makeTables = Effect.gen(function*() {
  const { sql } = yield* Postgres
  yield* sql`
    create table effect (id bigint not null, n int not null, at bigint generated always as identity)`
  yield* sql`create table balance (part int primary key, total bigint not null)`
  yield* sql`insert into balance select part, 0 from generate_series(0, 7) as part`
})

/** An effect of two halves: a row for the message, and what it is worth added to a balance. `between` comes between them. */
export const happen = <E = never, R = never>(
  id: bigint,
  n: number,
  between: Effect.Effect<void, E, R> = Effect.void
) =>
  Effect.gen(function*() {
    const { sql } = yield* Postgres
    yield* sql`insert into effect (id, n) values (${id}, ${n})`
    yield* between
    yield* sql`update balance set total = total + ${n} where part = ${n % 8}`
  })

/** Until everything that was sent to the queues is done or given up. The database may just come back. */
export const untilQuiet = (queues: ReadonlyArray<{ readonly name: string }>) =>
  Effect.repeat(Effect.retry(statsOf(queues), { schedule: Schedule.spaced("20 millis"), times: 500 }), {
    until: ({ dead, done, sent }) => done + dead === sent,
    schedule: Schedule.spaced("20 millis")
  })

const none: Stats = { ready: 0, later: 0, parked: 0, leased: 0, dead: 0, sent: 0, done: 0, failed: 0 }

/** Those of the queues together. */
const statsOf = Effect.fnUntraced(function*(names: ReadonlyArray<{ readonly name: string }>) {
  const queues = yield* Queues.Queues
  const each = yield* Effect.forEach(names, queues.stats)
  return each.reduce((sum, stats) => ({
    ready: sum.ready + stats.ready,
    later: sum.later + stats.later,
    parked: sum.parked + stats.parked,
    leased: sum.leased + stats.leased,
    dead: sum.dead + stats.dead,
    sent: sum.sent + stats.sent,
    done: sum.done + stats.done,
    failed: sum.failed + stats.failed
  }), none)
})

/** What the database has. */
export const remains = Effect.fnUntraced(function*(queues: ReadonlyArray<{ readonly name: string }>) {
  const { sql } = yield* Postgres
  const effects = yield* sql<Kept>`select id::int as id, n from effect order by at`
  const [balance] = yield* sql<{ readonly total: number }>`select sum(total)::float8 as total from balance`
  const dead = yield* sql<Kept>`
    select id::int as id, ((message).data ->> 'n')::int as n from dead_letter order by id`
  const waiting = yield* sql<Kept>`
    select id::int as id, (data ->> 'n')::int as n from message
    union all
    select (m.message).id::int, ((m.message).data ->> 'n')::int from message_later m
    union all
    select (m.message).id::int, ((m.message).data ->> 'n')::int from message_parked m
    union all
    select m.id::int, (m.data ->> 'n')::int from message_lease l cross join lateral unnest(l.messages) m`
  const [left] = yield* sql<{ readonly [table: string]: number }>`
    select
      (select count(*)::int from message) as message,
      (select count(*)::int from message_later) as message_later,
      (select count(*)::int from message_parked) as message_parked,
      (select count(*)::int from message_lease) as message_lease,
      (select count(*)::int from message_key) as message_key,
      (select count(*)::int from message_unique where until is null) as message_unique`
  const stats = yield* statsOf(queues)
  return { effects, balance: balance!.total, dead, waiting, left: left!, stats } satisfies Remains
})
