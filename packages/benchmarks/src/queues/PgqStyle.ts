/**
 * A queue as PgQ has it: a log that is only inserted to, ticks that divide it into batches, and one consumer who remembers the last
 * tick. A message has no state of its own, so what fails needs another queue. In our own words, without its rotation of tables.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import type * as Redacted from "effect/Redacted"
import * as Server from "../event-store/Server.ts"
import { failure } from "../Suite.ts"
import * as Batches from "./Batches.ts"
import { openBooks, payloadOf, type QueueSystem } from "./QueueSystem.ts"

const objects = [
  `create table event (
    id bigint generated always as identity,
    txid xid8 not null default pg_current_xact_id(),
    at timestamptz not null default now(),
    data jsonb not null
  )`,
  "create index event_txid on event (txid)",
  `create table tick (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    snapshot pg_snapshot not null
  )`,
  "create table subscription (last_tick bigint not null)",
  "insert into tick (snapshot) values (pg_current_snapshot())",
  "insert into subscription select max(id) from tick"
]

const addTick = "insert into tick (snapshot) values (pg_current_snapshot())"

const nextTick = "select id from tick where id > (select last_tick from subscription) order by id limit 1"

/** What the next tick sees and the last one did not. Found by event_txid. */
const events = `
  select e.data
  from subscription s
  join tick last on last.id = s.last_tick
  join tick next on next.id = $1
  join event e on e.txid >= pg_snapshot_xmin(last.snapshot) and e.txid < pg_snapshot_xmax(next.snapshot)
  where pg_visible_in_snapshot(e.txid, next.snapshot) and not pg_visible_in_snapshot(e.txid, last.snapshot)
  order by e.id`

/**
 * Opens one in a database, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const { rows } = yield* Server.connect({ url, schema: "public", maxConnections: 32, statementTimeout: 0 })
  yield* Effect.forEach(objects, (object) => rows(object, []), { discard: true }).pipe(
    Effect.mapError(failure("Making the PgQ-style queue"))
  )
  const books = yield* openBooks(url, {
    left: `select count(*) from event e
      where not pg_visible_in_snapshot(e.txid, (
        select t.snapshot from tick t join subscription s on s.last_tick = t.id
      ))`,
    empty: ["truncate event", "update subscription set last_tick = (select max(id) from tick)"]
  })

  // Its ticker runs by itself, and makes a tick when so many events have come.
  let sinceTick = 0
  const send: QueueSystem["send"] = Effect.fnUntraced(
    function*(payloads) {
      yield* rows("insert into event (data) select m::jsonb from unnest($1::text[]) as m", [
        Pg.textArray(payloads.map((payload) => JSON.stringify(payload)))
      ])
      sinceTick += payloads.length
      if (sinceTick < Batches.batchSize) return
      sinceTick = 0
      yield* rows(addTick, [])
    },
    Effect.mapError(failure("PgQ-style send"))
  )

  return {
    ...books,
    name: "PgQ-style SQL",
    url,
    send,
    // A batch is everybody's or nobody's: there is one consumer.
    work: Batches.work(
      1,
      Effect.fnUntraced(function*(handle) {
        const [tick] = yield* rows(nextTick, [])
        if (tick === undefined) {
          yield* rows(addTick, [])
          return 0
        }
        const id: bigint = cast(tick[0])
        const found = yield* rows(events, [Pg.bigint(id)])
        for (const [data] of found) handle(payloadOf(data))
        yield* rows("update subscription set last_tick = $1", [Pg.bigint(id)])
        return 1
      })
    )
  } satisfies QueueSystem
})
