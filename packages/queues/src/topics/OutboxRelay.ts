/**
 * Moves what was published out of the outbox, to topics and queues.
 *
 * **When to use**
 *
 * In every process that may be the one: one of them moves, and the others stand by. When it stops, another one goes on at once; when it
 * dies, within `TopicPolicies.relayLease`.
 *
 * **Details**
 *
 * A step is one statement. It takes messages out of the outbox, appends them to their topics and puts them into their queues: all of it or
 * nothing, whatever is killed meanwhile. Messages go in the order in which they were published, as far as there is one: a transaction that
 * began to publish after another one had committed comes after it. One that is open holds nobody else up.
 *
 * @since 0.1.0
 */
import * as Outbox from "@strata/outbox/Outbox"
import * as Outage from "@strata/postgres/Outage"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Traceparent from "@strata/postgres/Traceparent"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Pace from "@strata/resilience/retry/Pace"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { cast } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import * as Signal from "../consuming/Signal.ts"
import * as TopicMetrics from "./TopicMetrics.ts"
import { TopicPolicies } from "./TopicPolicies.ts"

/**
 * Moves messages until it is interrupted. Needs the tables of `OutboxMigrations`, `QueuesMigrations` and `TopicsMigrations`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run: Effect.Effect<never, never, Postgres> = Effect.gen(function*() {
  const { rows, wake, wakeups } = yield* Postgres
  const policies = yield* TopicPolicies
  const clock = yield* Clock.Clock
  const tracer = yield* Tracer.Tracer
  const owner = yield* Effect.provide(
    Effect.flatMap(SecureRandom.SecureRandom, (random) => random.uuidV4()),
    SecureRandom.layerWebCrypto
  )
  const hinted = Signal.make()
  const outage = Outage.make()

  const trace = (traceparent: string, messages: number, startTime: bigint) => {
    const parent = Traceparent.toSpan(traceparent)
    if (parent === undefined || tracer === Tracer.nativeTracer) return
    const span = tracer.span({
      name: "relay",
      parent: Option.some(parent),
      annotations: Context.empty(),
      links: [],
      startTime,
      kind: "producer",
      root: false,
      sampled: parent.sampled
    })
    span.attribute("messaging.system", "strata")
    span.attribute("messaging.batch.message_count", messages)
    span.end(clock.currentTimeNanosUnsafe(), Exit.void)
  }

  const rest = (messages: number) =>
    Pace.after(Duration.min(Duration.times(policies.relayRest, messages), policies.relayLongestRest))(Effect.void)

  /** True when there may be more. */
  const step = Effect.gen(function*() {
    const begunAt = clock.currentTimeNanosUnsafe()
    const [row] = yield* rows(relay, [
      Pg.uuid(owner),
      Pg.text(`pid ${process.pid}`),
      Pg.double(Duration.toSeconds(policies.relayLease)),
      Pg.int(policies.relayRows),
      Pg.int(policies.relayMessages)
    ])
    const [state, moved, messages, traceparents, channels]: StepRow = cast(row!)
    if (state === "standby" || moved === 0) return false
    for (const channel of channels) yield* wake(channel)
    yield* Metric.update(TopicMetrics.relayed, messages)
    // In the traces of those who published.
    for (const traceparent of traceparents ?? []) trace(traceparent, messages, begunAt)
    if (state === "more") return true
    yield* rest(messages)
    return false
  })

  const patiently = RetryPolicy.retry({
    policy: policies.reconnect,
    idempotent: true,
    classify: () => FailureClass.transient
  })

  yield* Stream.runForEach(wakeups(Outbox.channel, { here: true }), () => Effect.sync(hinted.set)).pipe(
    Effect.withTracerEnabled(false),
    Effect.forkScoped
  )
  yield* rows("select rotate_outbox($1) from outbox_relay where owner = $2", [
    Pg.bigint(BigInt(policies.tableSize)),
    Pg.uuid(owner)
  ]).pipe(
    Effect.catchCause((cause) => Effect.logDebug("The outbox could not be looked after", cause)),
    Pace.every(policies.rotation),
    Effect.withTracerEnabled(false),
    Effect.forkScoped
  )
  yield* Effect.addFinalizer(() =>
    Effect.forkDetach(
      Effect.ignore(
        Deadline.within(policies.relayLease)(
          Effect.andThen(rows("select leave_relay($1)", [Pg.uuid(owner)]), wake(Outbox.channel))
        )
      )
    )
  )

  const watched = step.pipe(
    Effect.tapError((error) => outage.failed("The outbox is not relayed", Cause.fail(error))),
    Effect.tap(() => outage.passed)
  )
  // What nobody has thought of ends a step, and no relay.
  const guarded = Effect.catchDefect(Effect.orDie(patiently(watched)), (defect) =>
    Effect.andThen(
      outage.failed("The outbox is not relayed", Cause.die(defect)),
      Effect.as(Pace.after(policies.relayPoll)(Effect.void), false)
    ))
  return yield* Effect.forever(Effect.flatMap(guarded, (isMore) =>
    isMore
      ? Effect.void
      : Effect.ignore(Deadline.within(policies.relayPoll)(hinted.wait))))
}).pipe(Effect.scoped)

/**
 * Moves messages as long as the layer is there.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never, never, Postgres> = Layer.effectDiscard(Effect.forkScoped(run))

const relay = `
  select state, rows, messages, traceparents, channels from relay_outbox($1, $2, $3, $4, $5)`

type StepRow = readonly [
  state: "moved" | "more" | "standby",
  moved: number,
  messages: number,
  traceparents: ReadonlyArray<string> | null,
  channels: ReadonlyArray<string>
]
