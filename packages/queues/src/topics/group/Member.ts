/**
 * A process that takes part in a consumer group: its heartbeats, and the lanes that work on what it has.
 *
 * @since 0.1.0
 */
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as Signal from "../../consuming/Signal.ts"
import { type Fenced, TopicError } from "../TopicError.ts"
import type * as TopicMetrics from "../TopicMetrics.ts"
import type { Policies } from "../TopicPolicies.ts"
import * as Lane from "./Lane.ts"
import type { Membership, Owned, Standing } from "./Membership.ts"
import * as Pages from "./Pages.ts"

/**
 * What a member needs.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<R> {
  readonly name: string
  readonly membership: Membership
  readonly heartbeat: Duration.Duration
  readonly concurrency: number
  readonly runLane: (lane: Lane.Lane, lost: (fenced: Fenced) => Effect.Effect<void>) => Effect.Effect<never, never, R>
  /** Saves how far a partition is that it gives up. */
  readonly save: (held: Pages.Held) => Effect.Effect<void, SqlError>
  readonly nameOf: (topic: number) => string
  /** Tells the other members that there is news. */
  readonly tell: Effect.Effect<void>
  readonly metrics: TopicMetrics.GroupMetrics
  readonly policies: Pick<Policies, "stop" | "settle" | "revocation" | "reconnect">
}

/**
 * A member at work.
 *
 * @category models
 * @since 0.1.0
 */
export interface Member {
  /** Others have news: it looks at once. */
  readonly hear: () => void
  /** A topic may have more. */
  readonly wake: (topic: number) => void
  /** Fails when it cannot take part any more. */
  readonly ended: Effect.Effect<never, TopicError>
}

/**
 * Takes part until the scope closes. Then it ends what it is handling, and gives up all it has.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*<R>(
  options: Options<R>
): Effect.fn.Return<Member, TopicError, R | Scope.Scope> {
  const { membership, metrics, policies } = options
  const clock = yield* Clock.Clock
  const heard = Signal.make()
  const ended = yield* Deferred.make<never, TopicError>()
  const lanes = Array.from({ length: options.concurrency }, Lane.make)
  const working = yield* Scope.make()
  let epoch = 0n
  /** It is to have something that is another's yet, or another assignment is due. */
  let waits = false

  const all = () => lanes.flatMap(({ held }) => [...held])
  const drop = (lane: Lane.Lane, held: Pages.Held) => lane.held.delete(held)

  const take = (owned: Owned) => {
    const lane = lanes.reduce((least, other) => other.held.size < least.held.size ? other : least)
    lane.held.add(Pages.holdingOf(owned))
    lane.hinted.set()
  }

  /** Lets the batch end that is at work, and saves how far it is. */
  const giveUp = (lane: Lane.Lane, held: Pages.Held) =>
    Effect.suspend(() => {
      const begun = clock.monotonicTimeNanosUnsafe()
      return lane.gate.withPermit(
        Effect.andThen(
          Effect.sync(() => drop(lane, held)),
          Effect.ignore(options.save(held))
        )
      ).pipe(
        Deadline.within(policies.revocation),
        Effect.ignore,
        Effect.andThen(
          Effect.suspend(() =>
            Metric.update(metrics.revocation, Number(clock.monotonicTimeNanosUnsafe() - begun) / 1e9)
          )
        ),
        Effect.andThen(Effect.sync(heard.set))
      )
    })

  /** What is being given up. */
  const leaving = new Set<Pages.Held>()

  const follow = Effect.fnUntraced(function*(standing: Standing) {
    const own: ReadonlyArray<Owned> = standing._tag === "Fenced" ? [] : standing.assigned
    const isMeant = (held: Pages.Held) =>
      own.some(({ epoch, partition, topic }) =>
        topic === held.topic && partition === held.partition && epoch === held.epoch
      )
    for (const lane of lanes) {
      for (const held of [...lane.held]) {
        if (isMeant(held) || leaving.has(held)) continue
        const isRevoked = standing._tag === "Member" &&
          standing.revoked.some(({ partition, topic }) => topic === held.topic && partition === held.partition)
        if (!isRevoked) {
          // Nothing that it does with it counts any more.
          drop(lane, held)
          continue
        }
        leaving.add(held)
        yield* giveUp(lane, held).pipe(
          Effect.ensuring(Effect.sync(() => leaving.delete(held))),
          Effect.forkIn(working)
        )
      }
    }
    for (const owned of own) {
      if (
        !all().some(({ epoch, partition, topic }) =>
          topic === owned.topic && partition === owned.partition && epoch === owned.epoch
        )
      ) take(owned)
    }
    yield* Metric.update(metrics.owned, all().length)
  })

  const report = ({ gone }: Extract<Standing, { _tag: "Member" }>) =>
    Effect.forEach(
      gone,
      (label) =>
        Effect.andThen(
          Metric.update(metrics.expired, 1),
          Effect.logWarning(
            `The member ${label} of the consumer group ${options.name} is gone: it gave no sign of life for its session, or did not give up ` +
              "in time what is another's"
          )
        ),
      { discard: true }
    )

  const beat = Effect.suspend(() =>
    membership.beat({ epoch, owned: all().map(({ partition, topic }) => ({ topic, partition })) })
  ).pipe(
    Effect.flatMap((standing) => {
      epoch = standing._tag === "Fenced" ? 0n : standing.epoch
      waits = standing._tag === "Member" && standing.waits
      if (standing._tag === "Fenced") heard.set()
      return Effect.andThen(
        follow(standing),
        standing._tag === "Member"
          ? Effect.andThen(report(standing), standing.news ? options.tell : Effect.void)
          : Effect.void
      )
    }),
    Effect.withTracerEnabled(false)
  )

  // Whatever it was: a member that ended here would leave its partitions to nobody.
  const patiently = RetryPolicy.retry({ policy: policies.reconnect, idempotent: true, classify: unlessRefused })
  const untilRefused = patiently(beat).pipe(
    Effect.catchIf((error) => !(error instanceof TopicError), Effect.die)
  )
  yield* untilRefused

  for (const lane of lanes) {
    yield* options.runLane(lane, (fenced) =>
      Effect.sync(() => {
        for (const held of [...lane.held]) {
          if (options.nameOf(held.topic) === fenced.topic && fenced.partitions.includes(held.partition)) {
            drop(lane, held)
          }
        }
        heard.set()
      })).pipe(
        Effect.forkIn(working)
      )
  }
  const beating = yield* Effect.suspend(() => {
    const pause = waits ? Duration.times(policies.settle, 0.5) : options.heartbeat
    return Effect.andThen(
      Effect.ignore(Deadline.within(Duration.min(options.heartbeat, pause))(heard.wait)),
      untilRefused
    )
  }).pipe(
    Effect.forever,
    Effect.tapError((error) =>
      Effect.suspend(() => {
        for (const lane of lanes) lane.held.clear()
        return Effect.logError(`The consumer group ${options.name} goes on without this member`, error)
      })
    ),
    Effect.onExit((exit) => Deferred.done(ended, exit)),
    Effect.forkIn(working)
  )

  const leave = Effect.gen(function*() {
    yield* Fiber.interrupt(beating)
    const held = lanes.map((lane) => ({ lane, held: [...lane.held] }))
    yield* Effect.forEach(
      held,
      ({ held, lane }) => Effect.forEach(held, (one) => giveUp(lane, one), { discard: true }),
      { concurrency: "unbounded", discard: true }
    )
    yield* Scope.close(working, Exit.void)
    yield* membership.leave
    yield* options.tell
    yield* Metric.update(metrics.owned, 0)
  }).pipe(
    Deadline.within(policies.stop),
    Effect.catchCause((cause) =>
      Effect.logWarning("Partitions were not given up, others take them when the session is over", cause)
    ),
    Effect.annotateLogs({ group: options.name })
  )
  // In a fiber of its own: a finalizer cannot be interrupted, and this one gives up after a while.
  yield* Effect.addFinalizer(() => Effect.flatMap(Effect.forkDetach(leave), Fiber.await))

  return {
    hear: heard.set,
    wake: (topic) => {
      for (const lane of lanes) {
        if ([...lane.held].some((held) => held.topic === topic)) lane.hinted.set()
      }
    },
    ended: Deferred.await(ended)
  }
})

const unlessRefused: FailureClass.Classifier = (error) =>
  error instanceof TopicError ? FailureClass.permanent : FailureClass.transient
