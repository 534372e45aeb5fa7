/**
 * How far a process has handled the facts of each key, and the keys that wait.
 *
 * @since 0.1.0
 */
import type { FailedFact } from "@strata/event-store/DurableSubscriptionPartition"
import type { Fact, Position, StreamId } from "@strata/event-store/Fact"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as ProjectionKey from "./ProjectionKey.ts"

/**
 * A key that waits, since one of its facts cannot be handled.
 *
 * @category models
 * @since 0.1.0
 */
export interface WaitingKey {
  readonly key: string
  readonly tenant: string
  readonly stream: StreamId
  /** The last fact handled. */
  readonly handled: Position
  /** The fact that cannot be handled. */
  readonly position: Position
  readonly error: string
  readonly attempts: number
  /** Facts of the key that came after it, and wait too. */
  readonly held: bigint
  readonly parkedAt: Timestamp.Timestamp
}

/**
 * Where a key is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Mark {
  readonly key: string
  readonly position: Position
  readonly isWaiting: boolean
}

/**
 * The key of a fact: its tenant and its stream.
 *
 * @category getters
 * @since 0.1.0
 */
export const keyOf = ({ stream, tenant }: Pick<Fact, "stream" | "tenant">): string =>
  ProjectionKey.format([tenant, stream])

/**
 * The statements of one process.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (sql: SqlClient.SqlClient, store: string, name: string) => {
  // Locks rows by primary key, in the order of the keys.
  const marks = (keys: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<Mark>, SqlError> =>
    sql<Mark>`
      select key, position, parked is not null as "isWaiting" from projection_inbox
      where store = ${store} and name = ${name} and key = any(${Pg.textArray(keys)})
      order by key
      for update`

  // Rows by primary key.
  const handled = (facts: ReadonlyArray<Fact>) =>
    facts.length === 0 ? Effect.void : sql`
      insert into projection_inbox (store, name, key, tenant, stream, position)
      select ${store}::text, ${name}::text, * from unnest(
        ${Pg.textArray(facts.map(keyOf))}, ${Pg.textArray(facts.map(({ tenant }) => tenant))},
        ${Pg.textArray(facts.map(({ stream }) => stream))}, ${Pg.bigintArray(facts.map(({ position }) => position))}
      )
      on conflict (store, name, key) do update set position = excluded.position`

  const hold = (counts: ReadonlyMap<string, number>) =>
    counts.size === 0 ? Effect.void : sql`
      update projection_inbox as i set held = i.held + h.facts
      from unnest(${Pg.textArray([...counts.keys()])}, ${Pg.intArray([...counts.values()])}) as h(key, facts)
      where i.store = ${store} and i.name = ${name} and i.key = h.key`

  const park = ({ attempts, error, fact }: FailedFact) =>
    sql`
      insert into projection_inbox (store, name, key, tenant, stream, position, parked, error, attempts, parked_at)
      values (
        ${store}, ${name}, ${keyOf(fact)}, ${fact.tenant}, ${fact.stream}, ${Pg.bigint(fact.position - 1n)},
        ${Pg.bigint(fact.position)}, ${error.replaceAll("\0", "")}, ${attempts}, clock_timestamp()
      )
      on conflict (store, name, key) do update
      set parked = excluded.parked, error = excluded.error, attempts = excluded.attempts, held = 0,
        parked_at = excluded.parked_at`

  const columns = sql.literal(`
    key, tenant, stream, position as handled, parked as position, error, attempts, held, parked_at as "parkedAt"`)
  // Served by projection_inbox_waiting.
  const waiting: Effect.Effect<ReadonlyArray<WaitingKey>, SqlError> = sql<WaitingKey>`
    select ${columns} from projection_inbox
    where store = ${store} and name = ${name} and parked is not null
    order by parked`

  const take = (key: string): Effect.Effect<WaitingKey | undefined, SqlError> =>
    Effect.map(
      sql<WaitingKey>`
        select ${columns} from projection_inbox
        where store = ${store} and name = ${name} and key = ${key} and parked is not null
        for update`,
      ([row]) => row
    )

  const goOn = (key: string, position: Position) =>
    sql`
      update projection_inbox
      set position = ${Pg.bigint(position)}, parked = null, error = null, attempts = 0, held = 0, parked_at = null
      where store = ${store} and name = ${name} and key = ${key}`

  return { marks, handled, hold, park, waiting, take, goOn }
}
