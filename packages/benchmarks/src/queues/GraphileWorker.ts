/**
 * graphile-worker, through its own API.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import { Logger, makeWorkerUtils, run, type RunnerOptions } from "graphile-worker"
import * as Server from "../event-store/Server.ts"
import { failure } from "../Suite.ts"
import { openBooks, payloadOf, type QueueSystem } from "./QueueSystem.ts"

const task = "noop"

const logger = new Logger(() => () => undefined)

/** Its defaults: a job at a time. */
const byDefault = { concurrency: 10, preset: {} }

/** What its own measurements use: many jobs claimed at once, and told to be done at once. */
const batching = {
  concurrency: 24,
  preset: { worker: { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } }
}

/**
 * Opens its tables in a database, for the time of the scope: with its defaults, and as fast as it gets.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const pool = yield* Server.nodePool(url, batching.concurrency + 2)
  // It asks for listeners. What an error means for the work is checked anyway.
  pool.on("error", () => undefined)
  pool.on("connect", (client) => client.on("error", () => undefined))
  const utils = yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () => makeWorkerUtils({ pgPool: pool, logger }),
      catch: failure("Opening graphile-worker")
    }),
    (utils) => Effect.ignore(Effect.tryPromise(() => Promise.resolve(utils.release())))
  )
  yield* Effect.tryPromise({ try: () => utils.migrate(), catch: failure("Making graphile-worker's tables") })
  const books = yield* openBooks(url, {
    left: "select count(*) from graphile_worker._private_jobs where attempts < max_attempts",
    empty: ["truncate graphile_worker._private_jobs"]
  })

  const send: QueueSystem["send"] = (payloads) => {
    const [first] = payloads
    return Effect.asVoid(Effect.tryPromise({
      try: (): Promise<unknown> =>
        payloads.length === 1
          ? utils.addJob(task, first)
          : utils.addJobs(payloads.map((payload) => ({ identifier: task, payload }))),
      catch: failure("graphile-worker add")
    }))
  }

  const workWith = (setting: Pick<RunnerOptions, "concurrency" | "preset">): QueueSystem["work"] => (handle) =>
    Effect.asVoid(Effect.acquireRelease(
      Effect.tryPromise({
        try: () =>
          run({
            pgPool: pool,
            ...setting,
            noHandleSignals: true,
            logger,
            taskList: { [task]: (payload) => handle(payloadOf(payload)) }
          }),
        catch: failure("graphile-worker run")
      }),
      (runner) => Effect.ignore(Effect.tryPromise(() => runner.stop()))
    ))

  const system: QueueSystem = { ...books, name: "graphile-worker", url, send, work: workWith(byDefault) }
  return { system, batching: { ...system, name: "graphile-worker, batching", work: workWith(batching) } }
})
