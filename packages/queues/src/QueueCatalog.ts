/**
 * The queues that are stored, and what is known of them in this process.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import { QueueError, unavailable, UnknownQueue } from "./QueueError.ts"
import * as QueueSettings from "./QueueSettings.ts"

/**
 * A queue as it is stored.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoredQueue {
  readonly id: number
  readonly name: string
  readonly settings: QueueSettings.QueueSettings
  readonly paused: boolean
  /** Another one after every change. */
  readonly version: bigint
  /** Some of its messages are large, or were: what is claimed is counted in bytes too. */
  readonly weighs: boolean
}

/**
 * How many messages of a queue there are, and were.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly ready: number
  /** Delayed, to be tried again, or held back by a rate. */
  readonly later: number
  /** Behind others of their key. */
  readonly parked: number
  readonly leased: number
  readonly dead: number
  readonly sent: number
  readonly done: number
  /** Tries that failed. */
  readonly failed: number
}

/** What names a queue. */
export interface Named {
  readonly name: string
}

/**
 * The queues of a database. What is known of one is believed for `refresh`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ rows }: Postgres["Service"], refresh: Duration.Duration) => {
  const known = new Map<string, { readonly queue: StoredQueue; readonly until: bigint }>()
  const bounded = new Set<number>()
  const nanos = Duration.toNanosUnsafe(refresh)

  const remember = (queue: StoredQueue) =>
    Clock.clockWith((clock) => {
      known.set(queue.name, { queue, until: clock.monotonicTimeNanosUnsafe() + nanos })
      if (queue.settings.maxDepth === undefined) bounded.delete(queue.id)
      else bounded.add(queue.id)
      return Effect.succeed(queue)
    })

  const one = (operation: string, { name }: Named, statement: Effect.Effect<Rows, SqlError>) =>
    Effect.flatMap(Effect.mapError(statement, unavailable(operation)), ([row]) =>
      row === undefined
        ? Effect.fail(new QueueError({ reason: new UnknownQueue({ queue: name }) }))
        : Effect.flatMap(decode(row), remember))

  const find = (queue: Named) => one("find", queue, rows(`${select} where name = $1`, [Pg.text(queue.name)]))

  /** One that somebody else makes at the same moment is there afterwards, and not found yet. */
  const declare = (queue: Named & { readonly settings: QueueSettings.QueueSettings }) =>
    one(
      "declare",
      queue,
      // Locks the name until it is committed.
      rows(
        `with made as (
            insert into queue (name, settings, rules) values ($1, $2::text::json, $3::text::jsonb)
            on conflict (name) do nothing
            returning ${columns}
          )
          select * from made union all ${select} where name = $1 limit 1`,
        [
          Pg.text(queue.name),
          Pg.text(encode(queue.settings)),
          Pg.text(JSON.stringify(QueueSettings.toRules(queue.settings)))
        ]
      )
    )

  return {
    /** True when how deep the queue is has to be looked at. */
    isBounded: (queue: number): boolean => bounded.has(queue),

    declare: (queue: Named & { readonly settings: QueueSettings.QueueSettings }) =>
      Effect.catchReason(declare(queue), "QueueError", "UnknownQueue", () => find(queue)),

    configure: (queue: Named, settings: QueueSettings.QueueSettings) =>
      one(
        "configure",
        queue,
        rows(
          `update queue set settings = $2::text::json, rules = $3::text::jsonb, version = version + 1
          where name = $1 returning ${columns}`,
          [
            Pg.text(queue.name),
            Pg.text(encode(settings)),
            Pg.text(JSON.stringify(QueueSettings.toRules(settings)))
          ]
        )
      ),

    setPaused: (queue: Named, paused: boolean) =>
      one(
        paused ? "pause" : "resume",
        queue,
        rows(
          `update queue set paused = $2, version = version + 1
          where name = $1 returning ${columns}`,
          [Pg.text(queue.name), Pg.boolean(paused)]
        )
      ),

    find,

    /** As it was not long ago. */
    known: (queue: Named) =>
      Clock.clockWith((clock) => {
        const found = known.get(queue.name)
        return found !== undefined && clock.monotonicTimeNanosUnsafe() < found.until
          ? Effect.succeed(found.queue)
          : find(queue)
      }),

    all: Effect.flatMap(
      Effect.mapError(rows(`${select} order by name`, []), unavailable("list")),
      (found) => Effect.forEach(found, decode)
    ),

    stats: (queue: Named) =>
      Effect.flatMap(
        Effect.mapError(rows(stats, [Pg.text(queue.name)]), unavailable("stats")),
        ([row]) =>
          row === undefined
            ? Effect.fail(new QueueError({ reason: new UnknownQueue({ queue: queue.name }) }))
            : Effect.succeed(statsOf(row))
      )
  }
}

/**
 * Has what is claimed of a queue counted in bytes. Locks its row until the commit, the first time.
 *
 * @category constructors
 * @since 0.1.0
 */
export const setWeighs = ({ rows }: Pick<Postgres["Service"], "rows">, queue: number): Effect.Effect<void, SqlError> =>
  Effect.asVoid(rows("update queue set weighs = true where id = $1 and not weighs", [Pg.int(queue)]))

type Rows = ReadonlyArray<ReadonlyArray<unknown>>

const columns = "id, name, settings, paused, version, weighs"

const select = `select ${columns} from queue`

const stats = `
  select
    coalesce(c.ready, 0) + d.ready, coalesce(c.later, 0) + d.later, coalesce(c.parked, 0) + d.parked,
    coalesce(c.leased, 0) + d.leased, coalesce(c.dead, 0) + d.dead, coalesce(c.sent, 0) + d.sent,
    coalesce(c.done, 0) + d.done, coalesce(c.failed, 0) + d.failed
  from queue q
  left join queue_count c on c.queue = q.id
  cross join lateral (
    select
      coalesce(sum(ready), 0)::bigint as ready, coalesce(sum(later), 0)::bigint as later,
      coalesce(sum(parked), 0)::bigint as parked, coalesce(sum(leased), 0)::bigint as leased,
      coalesce(sum(dead), 0)::bigint as dead, coalesce(sum(sent), 0)::bigint as sent,
      coalesce(sum(done), 0)::bigint as done, coalesce(sum(failed), 0)::bigint as failed
    from queue_delta where queue = q.id
  ) d
  where q.name = $1`

const statsOf = (row: ReadonlyArray<unknown>): Stats => {
  const [ready = 0, later = 0, parked = 0, leased = 0, dead = 0, sent = 0, done = 0, failed = 0] = row.map(Number)
  return { ready, later, parked, leased, dead, sent, done, failed }
}

const encodeSettings = Schema.encodeSync(QueueSettings.QueueSettings)
const encode = (settings: QueueSettings.QueueSettings): string => JSON.stringify(encodeSettings(settings))

const decodeSettings = Schema.decodeUnknownEffect(QueueSettings.QueueSettings)

const decode = (row: ReadonlyArray<unknown>) => {
  const [id, name, settings, paused, version, weighs]: readonly [
    number,
    string,
    unknown,
    boolean,
    bigint,
    boolean
  ] = cast(row)
  return Effect.map(
    Effect.orDie(decodeSettings(settings)),
    (settings): StoredQueue => ({ id, name, settings, paused, version, weighs })
  )
}
