/**
 * Looks at the server's parts, each within a bound of time.
 *
 * **Details**
 *
 * The server is `DOWN` without its database or its event store. It is `DEGRADED` when a projection has failed, has put
 * facts aside, or is far behind: writes and most reads still work. Results are shared for a moment, so that probes, which need no credential,
 * cannot load the database.
 *
 * @since 0.1.0
 */
import { EventStore } from "@strata/event-store/EventStore"
import type { Health as Healthy, HealthCheck, HealthDown, HealthStatus } from "@strata/http-api/SystemApi"
import { Postgres } from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import { Projections, type Status } from "@strata/projections/Projections"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import type * as Schema from "effect/Schema"
import { version } from "./Version.ts"

/**
 * How health is judged.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The longest a check may take. Default: 2 seconds. */
  readonly timeout?: Duration.Input | undefined
  /** How long a report is given again. Default: 500 milliseconds. */
  readonly timeToLive?: Duration.Input | undefined
  /** Seconds a projection may be behind before the server is `DEGRADED`, and before it is ready for the first time. Default: 30. */
  readonly maxLagSeconds?: number | undefined
}

/**
 * The health of the running server.
 *
 * @category services
 * @since 0.1.0
 */
export class Health extends Context.Service<Health, {
  readonly report: Effect.Effect<Healthy | HealthDown>
  /** Why requests should not be sent here; none when they should. Once caught up, lag no longer counts. */
  readonly notReady: Effect.Effect<Option.Option<string>>
}>()("@strata/server/Health") {
  static readonly layer = (
    options?: Options
  ): Layer.Layer<Health, never, Postgres | EventStore | Projections> => Layer.effect(Health, make(options ?? {}))
}

const make = Effect.fnUntraced(function*(options: Options) {
  const { sql } = yield* Postgres
  const store = yield* EventStore
  const projections = yield* Projections
  const startedAt = yield* Clock.currentTimeMillis
  const hasCaughtUp = yield* Ref.make(false)
  const timeout = options.timeout ?? "2 seconds"
  const maxLagSeconds = options.maxLagSeconds ?? 30

  const checks = Effect.all([
    check("database", timeout, Effect.as(sql`select 1`, ["UP", {}])),
    check("event-store", timeout, Effect.map(store.head, (head) => ["UP", { store: store.name, head: String(head) }])),
    check("projections", timeout, Effect.map(projections.status, (all) => judge(all, maxLagSeconds)))
  ], { concurrency: "unbounded" })

  const report = yield* Effect.cachedWithTTL(
    Effect.withTracerEnabled(false)(Effect.gen(function*() {
      const [database, eventStore, readModels] = yield* checks
      const now = yield* Clock.currentTimeMillis
      const rest = {
        checks: [database, eventStore, readModels],
        version,
        uptime: Math.round((now - startedAt) / 1000),
        timestamp: Timestamp.fromMillis(now)
      }
      if (database.status !== "UP" || eventStore.status !== "UP") return { status: "DOWN" as const, ...rest }
      return { status: readModels.status === "UP" ? "UP" as const : "DEGRADED" as const, ...rest }
    })),
    options.timeToLive ?? "500 millis"
  )

  const notReady = Effect.gen(function*() {
    const { checks, status } = yield* report
    if (status === "DOWN") return Option.some("The database does not answer")
    if (yield* Ref.get(hasCaughtUp)) return Option.none<string>()
    const behind = checks.find(({ name }) => name === "projections")?.details["behind"]
    if (behind !== false) return Option.some("The read models are catching up")
    yield* Ref.set(hasCaughtUp, true)
    return Option.none<string>()
  })

  return Health.of({ report, notReady })
})

type Verdict = readonly [status: HealthStatus, details: Schema.JsonObject]

/**
 * One check. It runs on a fiber of its own: a statement on a dead connection can take longer to be interrupted than a
 * probe waits.
 */
const check = Effect.fnUntraced(function*<E>(
  name: string,
  timeout: Duration.Input,
  look: Effect.Effect<Verdict, E>
): Effect.fn.Return<HealthCheck> {
  const started = yield* Clock.currentTimeNanos
  const fiber = yield* Effect.forkDetach(look, { startImmediately: true })
  const exit = yield* Effect.option(Deadline.within(timeout)(Fiber.await(fiber)))
  if (Option.isNone(exit)) fiber.interruptUnsafe()
  const responseTimeMs = Math.round(Number((yield* Clock.currentTimeNanos) - started) / 1e4) / 100
  const [status, details]: Verdict = Option.match(exit, {
    onNone: () => ["DOWN", { error: "It did not answer in time" }],
    onSome: Exit.match({ onSuccess: (verdict) => verdict, onFailure: () => ["DOWN", { error: "It failed to answer" }] })
  })
  if (Option.isSome(exit) && Exit.isFailure(exit.value)) {
    yield* Effect.logDebug(`Health check ${name}`, exit.value.cause)
  }
  return { name, status, responseTimeMs, details }
})

const judge = (all: ReadonlyArray<Status>, maxLagSeconds: number): Verdict => {
  const failed = all.filter(({ state }) => state === "failed" || state === "parked").map(({ name }) => name)
  const behind = all.some(({ lagSeconds, state }) => state !== "failed" && lagSeconds > maxLagSeconds)
  return [failed.length > 0 || behind ? "DEGRADED" : "UP", {
    lag: String(all.reduce((most, { lag }) => lag > most ? lag : most, 0n)),
    lagSeconds: Math.max(0, ...all.map(({ lagSeconds }) => lagSeconds)),
    behind,
    failed
  }]
}
