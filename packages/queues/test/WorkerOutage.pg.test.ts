import * as NodeServices from "@effect/platform-node/NodeServices"
import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as QueuePolicies from "@strata/queues/QueuePolicies"
import * as Queues from "@strata/queues/Queues"
import { migrations } from "@strata/queues/QueuesMigrations"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { declared, many } from "./fixture.ts"

layer(NodeServices.layer, { excludeTestServices: true })("a worker without its database", (it) => {
  it.effect("warns now and then, goes on by itself when it is back, and says so once", () =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make()
      const said: Array<readonly [string, string]> = []
      const logger = Logger.make(({ logLevel, message }) => {
        const [text] = Array.isArray(message) ? message : [message]
        if (String(text).startsWith("Queue ")) said.push([logLevel, String(text)])
      })
      const of = (level: string) => said.flatMap(([found, text]) => found === level ? [text] : [])
      const policies = {
        ...QueuePolicies.defaults,
        poll: Duration.millis(50),
        quietFor: Duration.millis(100),
        betweenWarnings: Duration.millis(300)
      }
      yield* Effect.gen(function*() {
        yield* Migrations.run([migrations])
        const queues = yield* Queues.Queues
        const queue = yield* declared("away")
        const handled = yield* Deferred.make<void>()
        yield* Effect.forkScoped(
          QueueWorker.run(queue, ({ payload: { n } }) => n === 2 ? Deferred.succeed(handled, undefined) : Effect.void)
        )
        yield* queues.send(queue, many(2))
        yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 2 })
        deepStrictEqual(said, [])
        yield* server.kill9
        yield* Effect.repeat(Effect.delay(Effect.sync(() => of("Warn")), 20), { until: ({ length }) => length >= 2 })
        yield* server.start()
        yield* Effect.retry(queues.send(queue, [{ payload: { n: 2 } }]), { times: 100 })
        yield* Deferred.await(handled)
        yield* Effect.repeat(Effect.delay(Effect.sync(() => of("Info")), 5), { until: ({ length }) => length > 0 })
      }).pipe(
        Effect.provide(
          Queues.layer.pipe(Layer.provideMerge(Postgres.layer({ url: server.url, maxConnections: 4 })))
        ),
        Effect.provideService(QueuePolicies.QueuePolicies, policies),
        Effect.provide(Logger.layer([logger]))
      )
      strictEqual(of("Warn").every((text) => text.startsWith("Queue away: nothing could be claimed for")), true)
      strictEqual(of("Info").length, 1)
      strictEqual(of("Info")[0]?.startsWith("Queue away: messages are claimed again, after"), true)
    }).pipe(Effect.scoped), 60_000)
})
