import * as DeadLetters from "@strata/queues/DeadLetters"
import * as Queue from "@strata/queues/Queue"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import type * as QueueSettings from "@strata/queues/QueueSettings"
import { migrations } from "@strata/queues/QueuesMigrations"
import * as QueueWorker from "@strata/queues/QueueWorker"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"

/** Queues in a database of their own. */
export const Database = Layer.mergeAll(DeadLetters.layer, QueuePull.layer).pipe(
  Layer.provideMerge(Queues.layer),
  Layer.provideMerge(PostgresTest.layer({ migrations: [migrations] }))
)

export const Payload = Schema.Struct({ n: Schema.Int })

/** A queue that is there. */
export const declared = Effect.fnUntraced(function*(name: string, settings?: QueueSettings.Options) {
  const queue = Queue.make({ name, payload: Payload, settings })
  yield* (yield* Queues.Queues).declare(queue)
  return queue
})

export const many = (count: number) => Array.from({ length: count }, (_, n) => ({ payload: { n } }))

/** Works until so many messages were handled, and gives what they held. */
export const collect = <A>(queue: Queue.Queue<A>, count: number, options: QueueWorker.Options = {}) =>
  Effect.scoped(Effect.gen(function*() {
    const seen: Array<A> = []
    const done = yield* Deferred.make<void>()
    yield* Effect.forkScoped(QueueWorker.run(queue, ({ payload }) =>
      Effect.suspend(() => {
        seen.push(payload)
        return seen.length === count ? Deferred.succeed(done, undefined) : Effect.void
      }), options))
    yield* Deferred.await(done)
    return seen
  }))
