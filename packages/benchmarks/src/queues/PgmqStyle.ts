/**
 * A queue as pgmq has it: a message is invisible for a while when it is read, and deleted when it is done. In our own words, and
 * without its dynamic SQL, which makes it faster than pgmq itself.
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
  `create table visible_queue (
    msg_id bigint generated always as identity primary key,
    read_ct integer not null default 0,
    enqueued_at timestamptz not null default now(),
    last_read_at timestamptz,
    vt timestamptz not null,
    message jsonb,
    headers jsonb
  )`,
  "create index visible_queue_vt on visible_queue (vt)",
  `create function send_visible(_messages text[]) returns setof bigint language sql as $$
    insert into visible_queue (vt, message)
    select clock_timestamp(), m::jsonb from unnest(_messages) as m
    returning msg_id
  $$`,
  `create function read_visible(_seconds integer, _limit integer)
  returns table (msg_id bigint, read_ct integer, message jsonb) language sql as $$
    with next as (
      select q.msg_id from visible_queue q
      where q.vt <= clock_timestamp()
      order by q.msg_id
      limit _limit
      for update skip locked
    )
    update visible_queue q
    set vt = clock_timestamp() + _seconds * interval '1 second', last_read_at = clock_timestamp(), read_ct = q.read_ct + 1
    from next where q.msg_id = next.msg_id
    returning q.msg_id, q.read_ct, q.message
  $$`,
  `create function delete_visible(_ids bigint[]) returns setof bigint language sql as $$
    delete from visible_queue where msg_id = any(_ids) returning msg_id
  $$`
]

/**
 * Opens one in a database, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const { rows } = yield* Server.connect({ url, schema: "public", maxConnections: 32, statementTimeout: 0 })
  yield* Effect.forEach(objects, (object) => rows(object, []), { discard: true }).pipe(
    Effect.mapError(failure("Making the pgmq-style queue"))
  )
  const books = yield* openBooks(url, {
    left: "select count(*) from visible_queue",
    empty: ["truncate visible_queue"]
  })
  return {
    ...books,
    name: "pgmq-style SQL",
    url,
    send: (payloads) =>
      rows("select send_visible($1)", [Pg.textArray(payloads.map((payload) => JSON.stringify(payload)))]).pipe(
        Effect.asVoid,
        Effect.mapError(failure("pgmq-style send"))
      ),
    work: Batches.work(
      2,
      Effect.fnUntraced(function*(handle) {
        const read = yield* rows("select msg_id, read_ct, message from read_visible(30, $1)", [
          Pg.int(Batches.batchSize)
        ])
        if (read.length === 0) return 0
        for (const [, , message] of read) handle(payloadOf(message))
        yield* rows("select delete_visible($1)", [Pg.bigintArray(read.map(([id]): bigint => cast(id)))])
        return read.length
      })
    )
  } satisfies QueueSystem
})
