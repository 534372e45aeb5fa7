/**
 * Plain SQL through the driver that Strata uses, on the smallest table that is a queue: what PostgreSQL itself can do.
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

const tables = [
  `create table job (
    id bigint generated always as identity primary key,
    payload jsonb not null,
    run_at timestamptz not null default now(),
    state smallint not null default 0,
    locked_by integer
  )`,
  "create index job_ready on job (run_at, id) where state = 0"
]

/** The next ones, passed over while others have them. Found by job_ready. */
const next = `select id from job where state = 0 and run_at <= now()
    order by run_at, id limit ${Batches.batchSize} for update skip locked`

const claim = `with next as (${next})
  update job set state = 1, locked_by = 1 from next where job.id = next.id returning job.id, job.payload`

const take = `with next as (${next})
  delete from job using next where job.id = next.id returning job.id, job.payload`

/**
 * Opens the table in a database, for the time of the scope: claimed by an update and then deleted, and deleted as the claim,
 * which loses what the claimer had when it dies.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const { rows } = yield* Server.connect({ url, schema: "public", maxConnections: 32, statementTimeout: 0 })
  yield* Effect.forEach(tables, (table) => rows(table, []), { discard: true }).pipe(
    Effect.mapError(failure("Making the table"))
  )
  const books = yield* openBooks(url, { left: "select count(*) from job", empty: ["truncate job"] })

  const send: QueueSystem["send"] = (payloads) => {
    const texts = payloads.map((payload) => JSON.stringify(payload))
    const sent = texts.length === 1
      ? rows("insert into job (payload) values ($1::text::jsonb)", [Pg.text(texts[0]!)])
      : rows("insert into job (payload) select p::jsonb from unnest($1::text[]) as p", [Pg.textArray(texts)])
    return Effect.asVoid(Effect.mapError(sent, failure("Plain insert")))
  }

  const updateThenDelete = Batches.work(
    2,
    Effect.fnUntraced(function*(handle) {
      const claimed = yield* rows(claim, [])
      if (claimed.length === 0) return 0
      for (const [, payload] of claimed) handle(payloadOf(payload))
      yield* rows("delete from job using unnest($1::bigint[]) as done (id) where job.id = done.id", [
        Pg.bigintArray(claimed.map(([id]): bigint => cast(id)))
      ])
      return claimed.length
    })
  )

  const deleteAsClaim = Batches.work(
    2,
    Effect.fnUntraced(function*(handle) {
      const taken = yield* rows(take, [])
      for (const [, payload] of taken) handle(payloadOf(payload))
      return taken.length
    })
  )

  const system: QueueSystem = { ...books, name: "plain SQL, update then delete", url, send, work: updateThenDelete }
  return { system, deleting: { ...system, name: "plain SQL, delete as the claim", work: deleteAsClaim } }
})
