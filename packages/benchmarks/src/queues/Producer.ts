/**
 * Sends messages at a rate, in this process or in one of its own.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Random from "effect/Random"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { fileURLToPath } from "node:url"
import { BenchmarkError, failure } from "../Suite.ts"
import { stopwatch } from "./Loading.ts"
import type { Payload, QueueSystem } from "./QueueSystem.ts"

/**
 * What is to be sent.
 *
 * - `system`: whose queue it is.
 * - `rate`: messages a second. `batch`: messages of a call. `count`: of all calls, a multiple of `batch`.
 * - `senders`: calls that are on their way at once. When all of them are, the next one is late, and so are those after it.
 * - `jitter`: milliseconds by which a call is too early or too late, so that it does not keep step with anything.
 * - `mix`: priorities, and their shares of a hundred messages.
 *
 * @category models
 * @since 0.1.0
 */
export const Order = Schema.Struct({
  system: Schema.Literals(["Strata", "graphile-worker", "pg-boss"]),
  rate: Schema.Finite,
  batch: Schema.Int,
  count: Schema.Int,
  senders: Schema.Int,
  jitter: Schema.Finite,
  mix: Schema.Array(Schema.Struct({ priority: Schema.Int, share: Schema.Int }))
})
export type Order = typeof Order.Type

/**
 * Messages of a queue without priorities.
 *
 * @category constants
 * @since 0.1.0
 */
export const unmixed: Order["mix"] = [{ priority: 5, share: 100 }]

/**
 * Sends what is ordered. A message tells when its call began.
 *
 * @category constructors
 * @since 0.1.0
 */
export const produce = Effect.fnUntraced(function*(
  system: Pick<QueueSystem, "send">,
  { batch, count, jitter, mix, rate, senders }: Order
): Effect.fn.Return<void, BenchmarkError> {
  const now = yield* stopwatch
  const priorities = mix.flatMap(({ priority, share }) => Array.from({ length: share }, () => priority))
  // 37 and 100 have no divisor in common, so a hundred messages in a row have every place once.
  const message = (n: number, at: number): Payload => ({ n, at, priority: priorities[n * 37 % 100]! })
  const begun = now()
  let next = 0
  const sender = Effect.gen(function*() {
    while (next < count) {
      const from = next
      next += batch
      const early = (yield* Random.nextBetween(-jitter, jitter)) + from / rate * 1000 - (now() - begun)
      if (early > 0) yield* Effect.sleep(early)
      const at = now()
      yield* system.send(Array.from({ length: batch }, (_, index) => message(from + index, at)))
    }
  })
  yield* Effect.forEach(Array.from({ length: senders }), () => sender, { concurrency: "unbounded", discard: true })
})

/**
 * What such a process says in the end.
 *
 * @category constants
 * @since 0.1.0
 */
export const allSent = "sent"

/**
 * Sends what is ordered from a process of its own.
 *
 * @category constructors
 * @since 0.1.0
 */
export const produceApart = Effect.fnUntraced(function*(url: Redacted.Redacted, order: Order) {
  const spawner = yield* ChildProcessSpawner
  const program = fileURLToPath(new URL("./produce.ts", import.meta.url))
  const said = yield* spawner.lines(
    ChildProcess.make(process.execPath, [...process.execArgv, program, yield* encode(order)], {
      env: { STRATA_BENCH_URL: url },
      extendEnv: true,
      stderr: "inherit"
    })
  )
  if (said[0] !== allSent) return yield* new BenchmarkError({ message: `it did not send all: ${said.join(" ")}` })
}, Effect.mapError(failure("Sending from another process")))

const encode = Schema.encodeEffect(Schema.fromJsonString(Order))
