/**
 * Messages that are sent at times: by a cron expression in a time zone, or once.
 *
 * **Details**
 *
 * A schedule is a row. Whichever process finds that its time has come sends the message and writes the next time, in one transaction:
 * it fires once, however many processes there are. Times that passed while no process was there go by `missed`:
 *
 * - `skip`: they are left out. What is late by less than a minute still counts as in time.
 * - `once` (default): one message for all of them.
 * - `all`: one for each, at most a thousand.
 *
 * The message says in its headers which schedule sent it (`schedule`) and for which time (`scheduled-at`).
 *
 * **Gotchas**
 *
 * In a time zone with summer time, a time of day may come twice, or not at all: see `effect/Cron`.
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Context from "effect/Context"
import * as Cron from "effect/Cron"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { NewMessage } from "./Message.ts"
import type { Queue } from "./Queue.ts"
import * as QueueCatalog from "./QueueCatalog.ts"
import { InvalidMessage, QueueError, unavailable } from "./QueueError.ts"
import { QueuePolicies } from "./QueuePolicies.ts"
import { channelOf, Queues } from "./Queues.ts"
import * as LargeSend from "./sending/LargeSend.ts"
import * as Payload from "./sending/Payload.ts"
import * as PreparedMessage from "./sending/PreparedMessage.ts"
import * as SendStatement from "./sending/SendStatement.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * When a message is sent.
 *
 * @category models
 * @since 0.1.0
 */
export type When =
  | { readonly cron: string; readonly timezone?: string | undefined; readonly missed?: Missed | undefined }
  | { readonly at: Timestamp.Timestamp; readonly missed?: Missed | undefined }

/**
 * What becomes of times that passed.
 *
 * @category models
 * @since 0.1.0
 */
export type Missed = "skip" | "once" | "all"

/**
 * A schedule as it is stored.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoredSchedule {
  readonly name: string
  readonly queue: string
  readonly cron: string | undefined
  readonly timezone: string
  readonly missed: Missed
  readonly paused: boolean
  /** Undefined: it will not fire any more. */
  readonly nextAt: Timestamp.Timestamp | undefined
  readonly lastAt: Timestamp.Timestamp | undefined
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * The schedules of a database.
 *
 * @category services
 * @since 0.1.0
 */
export class Schedules extends Context.Service<Schedules, {
  /** Makes a schedule, or puts another one in the place of the one with its name. */
  readonly put: <A>(
    name: string,
    when: When,
    queue: Queue<A>,
    message: Omit<NewMessage<A>, "delay" | "unique">
  ) => Effect.Effect<StoredSchedule, QueueError>
  /** False when there is none. */
  readonly remove: (name: string) => Effect.Effect<boolean, QueueError>
  /** False when there is none. While it is paused, its times are missed. */
  readonly setPaused: (name: string, paused: boolean) => Effect.Effect<boolean, QueueError>
  readonly all: Effect.Effect<ReadonlyArray<StoredSchedule>, QueueError>
  /** Sends what is due, and tells how many messages. The layer does so by itself. */
  readonly fire: Effect.Effect<number, QueueError>
}>()("@strata/queues/Schedules") {}

/**
 * The schedules of the database in the context, which are fired while the layer is there.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Schedules, never, Postgres | Queues> = Layer.effect(
  Schedules,
  Effect.gen(function*() {
    const postgres = yield* Postgres
    const { rows, transact, wake } = postgres
    const queues = yield* Queues
    const { payloads } = queues
    const policies = yield* QueuePolicies
    const statement = SendStatement.make(postgres)
    const send = LargeSend.make(payloads, (calls) => statement(calls, () => false))

    /** Sends what is due of some schedules, and moves them on. Locks their rows; passes over those that others hold. */
    const fireSome = Effect.gen(function*() {
      const due = yield* rows(select, [Pg.int(atOnce)])
      const queues = new Set<number>()
      let sent = 0
      for (const row of due) {
        const [name, cron, timezone, missed, message, nextAt, now]: DueRow = cast(row)
        const plan = cron === null ? { times: timesOnce(missed, nextAt, now), next: undefined } : Result.match(
          Cron.parse(cron, timezone),
          {
            onSuccess: (parsed) => planOf(parsed, missed, nextAt, now),
            // It was valid when it was put: only a zone that this system does not know comes here.
            onFailure: () => ({ times: [], next: undefined })
          }
        )
        if (plan.times.length > 0) {
          const stored = yield* Effect.orDie(decode(message))
          const prepared = yield* LargeSend.copy(payloads, { ...stored, large: null })
          queues.add(prepared.queue)
          yield* send(plan.times.map((time) => ({ ...prepared, headers: headersOf(prepared.headers, name, time) })))
        }
        yield* rows("update queue_schedule set next_at = $2, last_at = coalesce($3, last_at) where name = $1", [
          Pg.text(name),
          Pg.timestamptz(plan.next ?? null),
          Pg.timestamptz(plan.times.at(-1) ?? null)
        ])
        sent += plan.times.length
      }
      return { queues, sent, isMore: due.length === atOnce }
    })

    const fire: Effect.Effect<number, QueueError> = Effect.gen(function*() {
      let total = 0
      for (;;) {
        const { isMore, queues, sent } = yield* Effect.mapError(transact(fireSome), unavailable("fire schedules"))
        for (const queue of queues) yield* wake(channelOf(queue))
        total += sent
        if (!isMore) break
      }
      return total
    })

    yield* fire.pipe(
      Effect.catchCause((cause) => Effect.logDebug("Schedules could not be fired", cause)),
      Pace.every(policies.upkeep),
      Effect.forkScoped
    )

    const put = Effect.fnUntraced(function*<A>(
      name: string,
      when: When,
      queue: Queue<A>,
      message: Omit<NewMessage<A>, "delay" | "unique">
    ) {
      const refuse = (path: string, problem: string) =>
        new QueueError({ reason: new InvalidMessage({ queue: queue.name, path, problem }) })
      const { id, weighs } = yield* queues.find(queue)
      const prepared = yield* Effect.fromResult(Result.mapError(
        Result.flatMap(
          Payload.encode(queue, message.payload, policies),
          (payload) =>
            PreparedMessage.prepare(message, payload, { queue: id, queueName: queue.name, traceparent: null })
        ),
        ({ path, problem }) => refuse(path, problem)
      ))
      if (prepared.bytes !== null || prepared.large?.kind === "bytes") {
        return yield* refuse("payload", "a schedule sends JSON, not bytes")
      }
      const now = yield* Effect.mapError(
        Effect.map(rows("select clock_timestamp()", []), ([row]): Timestamp.Timestamp => cast(row?.[0])),
        unavailable("put a schedule")
      )
      const { missed = "once" } = when
      const { cron, nextAt, timezone } = "at" in when
        ? { cron: null, nextAt: when.at, timezone: "UTC" }
        : yield* firstOf(when, now, refuse)
      const store = (prepared: PreparedMessage.PreparedMessage) =>
        rows(insert, [
          Pg.text(name),
          Pg.int(id),
          Pg.text(cron),
          Pg.text(timezone),
          Pg.text(missed),
          Pg.text(encode(prepared)),
          Pg.timestamptz(nextAt)
        ])
      const isLight = LargeSend.weightOf([prepared]) === "light"
      const found = yield* Effect.mapError(
        isLight ? store(prepared) : transact(Effect.gen(function*() {
          if (!weighs) yield* QueueCatalog.setWeighs(postgres, id)
          return yield* store(yield* LargeSend.place(payloads, prepared))
        })),
        unavailable("put a schedule")
      )
      return scheduleOf(found[0] ?? [])
    })

    const one = (operation: string, statement: string, parameters: ReadonlyArray<Pg.Parameter>) =>
      Effect.mapBoth(rows(statement, parameters), {
        onSuccess: (found) => found.length > 0,
        onFailure: unavailable(operation)
      })

    return Schedules.of({
      put,
      remove: (name) =>
        one("remove a schedule", "delete from queue_schedule where name = $1 returning 1", [Pg.text(name)]),
      setPaused: (name, paused) =>
        one("pause a schedule", "update queue_schedule set paused = $2 where name = $1 returning 1", [
          Pg.text(name),
          Pg.boolean(paused)
        ]),
      all: Effect.mapBoth(rows(`${selectAll} order by s.name`, []), {
        onSuccess: (found) => found.map(scheduleOf),
        onFailure: unavailable("list schedules")
      }),
      fire
    })
  })
)

// ---------------------------------------------------------------------------------------------------------- times

/** Schedules that one transaction fires. */
const atOnce = 20

/** Times of one schedule that one look sends for. */
const mostTimes = 1000

/** What is late by less is in time. */
const grace = 60_000_000n

const timesOnce = (missed: Missed, at: Timestamp.Timestamp, now: Timestamp.Timestamp) =>
  missed === "skip" && now - at > grace ? [] : [at]

const planOf = (cron: Cron.Cron, missed: Missed, from: Timestamp.Timestamp, now: Timestamp.Timestamp) => {
  const times: Array<Timestamp.Timestamp> = []
  let next = from
  while (next <= now) {
    if (missed === "all" && times.length === mostTimes) return { times, next }
    if (missed !== "all") times.length = 0
    times.push(next)
    next = after(cron, next)
  }
  const [last] = times.slice(-1)
  return { times: missed === "skip" && last !== undefined && now - last > grace ? [] : times, next }
}

const after = (cron: Cron.Cron, time: Timestamp.Timestamp): Timestamp.Timestamp =>
  Timestamp.fromMillis(Cron.next(cron, Timestamp.toMillis(time)).getTime())

const firstOf = (
  { cron, timezone = "UTC" }: { readonly cron: string; readonly timezone?: string | undefined },
  now: Timestamp.Timestamp,
  refuse: (path: string, problem: string) => QueueError
) => {
  if (Option.isNone(DateTime.zoneMakeNamed(timezone))) {
    return Effect.fail(refuse("timezone", `there is no time zone ${timezone}`))
  }
  return Effect.fromResult(
    Result.mapBoth(Cron.parse(cron, timezone), {
      onSuccess: (parsed) => ({ cron, timezone, nextAt: after(parsed, now) }),
      onFailure: ({ message }) => refuse("cron", message)
    })
  )
}

// ----------------------------------------------------------------------------------------------------------- rows

const select = `
  select name, cron, timezone, missed, message, next_at, clock_timestamp()
  from queue_schedule
  where not paused and next_at <= clock_timestamp()
  order by next_at
  limit $1
  for update skip locked`

type DueRow = readonly [
  string,
  string | null,
  string,
  Missed,
  unknown,
  Timestamp.Timestamp,
  Timestamp.Timestamp
]

const columns = "s.name, q.name, s.cron, s.timezone, s.missed, s.paused, s.next_at, s.last_at"

const selectAll = `select ${columns} from queue_schedule s join queue q on q.id = s.queue`

const insert = `
  with s as (
    insert into queue_schedule as t (name, queue, cron, timezone, missed, message, next_at)
    values ($1, $2, $3, $4, $5, $6::text::json, $7)
    on conflict (name) do update set
      queue = excluded.queue, cron = excluded.cron, timezone = excluded.timezone, missed = excluded.missed,
      message = excluded.message, next_at = excluded.next_at
    returning t.*
  )
  select ${columns} from s join queue q on q.id = s.queue`

const scheduleOf = (row: ReadonlyArray<unknown>): StoredSchedule => {
  const [name, queue, cron, timezone, missed, paused, nextAt, lastAt]: readonly [
    string,
    string,
    string | null,
    string,
    Missed,
    boolean,
    Timestamp.Timestamp | null,
    Timestamp.Timestamp | null
  ] = cast(row)
  return {
    name,
    queue,
    cron: cron ?? undefined,
    timezone,
    missed,
    paused,
    nextAt: nextAt ?? undefined,
    lastAt: lastAt ?? undefined
  }
}

const NullableText = Schema.NullOr(Schema.String)

/** A message that was made ready when the schedule was put. */
const StoredMessage = Schema.Struct({
  queue: Schema.Int,
  priority: Schema.Int,
  tenant: Schema.String,
  type: Schema.String,
  key: NullableText,
  correlationId: NullableText,
  causationId: NullableText,
  traceparent: Schema.Null,
  headers: NullableText,
  data: NullableText,
  bytes: Schema.Null,
  storedAt: NullableText,
  delay: Schema.Finite,
  unique: Schema.Null
})

const decode = Schema.decodeUnknownEffect(StoredMessage)

const encode = Schema.encodeUnknownSync(Schema.fromJsonString(StoredMessage))

const decodeHeaders = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Record(Schema.String, Schema.Unknown)))

const headersOf = (headers: string | null, schedule: string, time: Timestamp.Timestamp): string =>
  JSON.stringify({
    ...(headers === null ? {} : decodeHeaders(headers)),
    schedule,
    "scheduled-at": Timestamp.format(time)
  })
