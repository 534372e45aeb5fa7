/**
 * pg-boss, through its own API.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { PgBoss } from "pg-boss"
import { failure } from "../Suite.ts"
import { openBooks, payloadOf, type QueueSystem } from "./QueueSystem.ts"

/** The queues: `told` wakes its workers up by a notification. What is given up goes to `dead`. */
const quiet = "noop"
const told = "told"
const dead = "dead"

/** Jobs that a worker gets at once, and workers. More of either make it no faster. */
const batch = { batchSize: 500, localConcurrency: 2 }

/**
 * Opens its tables in a database, for the time of the scope: as fast as it gets, and with notifications.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const boss = yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () => {
        const boss = new PgBoss({
          connectionString: Redacted.value(url),
          max: 12,
          schedule: false,
          supervise: false,
          useListenNotify: true
        })
        // Without a listener an error of its own would end the process. What it means for the work is checked anyway.
        boss.on("error", () => undefined)
        return boss.start()
      },
      catch: failure("Opening pg-boss")
    }),
    (boss) => Effect.ignore(Effect.tryPromise(() => boss.stop({ graceful: false })))
  )
  const created = (name: string, options: Parameters<PgBoss["createQueue"]>[1]) =>
    Effect.tryPromise({ try: () => boss.createQueue(name, options), catch: failure("Making a queue of pg-boss") })
  yield* created(dead, {})
  yield* created(quiet, { deadLetter: dead })
  yield* created(told, { deadLetter: dead, notify: true })
  const books = yield* openBooks(url, {
    left: "select count(*) from pgboss.job where state < 'completed'",
    empty: ["truncate pgboss.job"]
  })

  const sendTo = (queue: string): QueueSystem["send"] => (payloads) => {
    const [first] = payloads
    return Effect.asVoid(Effect.tryPromise({
      try: (): Promise<unknown> =>
        payloads.length === 1 && first !== undefined
          ? boss.send(queue, first)
          : boss.insert(queue, payloads.map((data) => ({ data }))),
      catch: failure("pg-boss send")
    }))
  }

  const workOn = (queue: string): QueueSystem["work"] => (handle) =>
    Effect.asVoid(Effect.acquireRelease(
      Effect.tryPromise({
        try: () =>
          boss.work(
            queue,
            // Half a second is the shortest time it takes; in between it goes on while it finds full batches.
            { ...batch, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true },
            (jobs) => {
              for (const { data } of jobs) handle(payloadOf(data))
              return Promise.resolve()
            }
          ),
        catch: failure("pg-boss work")
      }),
      () => Effect.ignore(Effect.tryPromise(() => boss.offWork(queue)))
    ))

  const system: QueueSystem = { ...books, name: "pg-boss", url, send: sendTo(quiet), work: workOn(quiet) }
  return { system, notifying: { ...system, name: "pg-boss, notifying", send: sendTo(told), work: workOn(told) } }
})
