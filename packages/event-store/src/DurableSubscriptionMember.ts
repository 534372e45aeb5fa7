/**
 * A process that takes part in a durable subscription: renews its lease, handles the partitions it holds, and hands over
 * those that are another's share.
 *
 * @since 0.1.0
 */
import type * as Outage from "@strata/postgres/Outage"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { Claim } from "./DurableSubscriptionCheckpoints.ts"
import type { PartitionFenced } from "./DurableSubscriptionError.ts"
import type { Held, Leases } from "./DurableSubscriptionLeases.ts"
import * as DurableSubscriptionMetrics from "./DurableSubscriptionMetrics.ts"
import type { Progress } from "./DurableSubscriptionPartition.ts"
import type { SubscriptionPolicies } from "./EventStorePolicies.ts"

/**
 * What a member needs.
 *
 * @category options
 * @since 0.1.0
 */
export interface MemberOptions<R> {
  readonly name: string
  readonly leases: Leases
  readonly lease: Duration.Duration
  /** How long a stop waits for a batch that is being handled. */
  readonly stopTimeout: Duration.Duration
  readonly policies: Pick<SubscriptionPolicies, "leaveMargin" | "renewAfter">
  /** Told of renewals. */
  readonly outage: Outage.Outage
  /** Tells of other members that partitions may be free, or wanted. */
  readonly hints: Stream.Stream<void>
  readonly hint: Effect.Effect<void>
  readonly handle: (
    claim: Claim,
    progress: Progress,
    gate: Semaphore.Semaphore
  ) => Effect.Effect<never, PartitionFenced, R>
}

/** A partition being handled. It is known here until a renewal no longer names its epoch. */
interface Running {
  readonly claim: Claim
  readonly progress: Progress
  readonly gate: Semaphore.Semaphore
  readonly fiber: Fiber.Fiber<never, PartitionFenced>
  leaving: boolean
}

/**
 * Takes part until the scope closes. Then it ends the batches being handled and hands its partitions over at once.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*<R>(
  options: MemberOptions<R>
): Effect.fn.Return<void, never, R | Scope.Scope> {
  const { hint, leases, name, policies } = options
  const owned = DurableSubscriptionMetrics.ownedOf(name)
  const running = new Map<number, Running>()
  const handlers = yield* Scope.make()
  const renewNow = yield* Queue.sliding<void>(1)

  const start = Effect.fnUntraced(function*(claim: Claim) {
    const before = running.get(claim.partition)?.fiber
    const progress = { cursor: claim.position, saved: claim.position }
    const gate = Semaphore.makeUnsafe(1)
    const fiber = yield* (before === undefined ? Effect.void : Fiber.interrupt(before)).pipe(
      Effect.andThen(options.handle(claim, progress, gate)),
      Effect.tapErrorTag(
        "PartitionFenced",
        (fenced) => Effect.andThen(Effect.logWarning(fenced.message), Queue.offer(renewNow, undefined))
      ),
      Effect.tapCauseIf(
        (cause) => cause.reasons.some((reason) => reason._tag === "Die"),
        (cause) =>
          Effect.logError("The handling of a partition broke off, it starts again with the next renewal", cause)
      ),
      Effect.forkIn(handlers)
    )
    running.set(claim.partition, { claim, progress, gate, fiber, leaving: false })
  })

  /** Lets the batch that is being handled end, within a bound, then ends the handling. */
  const stop = ({ fiber, gate }: Running) =>
    Effect.andThen(Effect.timeoutOption(gate.take(1), options.stopTimeout), Fiber.interrupt(fiber))

  const handOver = (one: Running) =>
    stop(one).pipe(
      Effect.andThen(leases.release([{ claim: one.claim, cursor: one.progress.cursor }])),
      Effect.andThen(hint),
      Effect.catchCause((cause) =>
        Effect.andThen(
          Effect.logWarning("A partition was not handed over", cause),
          Effect.sync(() => running.delete(one.claim.partition))
        )
      ),
      Effect.forkIn(handlers)
    )

  const follow = Effect.fnUntraced(function*({ claims, excess }: Held) {
    for (const [partition, { claim, fiber }] of running) {
      if (claims.some((held) => held.partition === partition && held.epoch === claim.epoch)) continue
      if (!claims.some((held) => held.partition === partition)) {
        yield* Effect.forkIn(Fiber.interrupt(fiber), handlers)
        running.delete(partition)
      }
    }
    for (const claim of claims) {
      const known = running.get(claim.partition)
      const ended = known?.fiber.pollUnsafe() !== undefined && !known.leaving
      if (known?.claim.epoch !== claim.epoch || ended) yield* start(claim)
    }
    const staying = Array.from(running.values()).filter(({ leaving }) => !leaving)
    const surplus = Math.max(0, excess - (running.size - staying.length))
    for (const one of staying.slice(staying.length - surplus)) {
      one.leaving = true
      yield* handOver(one)
    }
    yield* Metric.update(owned, claims.length)
  })

  // What is started here is traced as its caller says.
  const renew = Effect.flatMap(Effect.withTracerEnabled(leases.renew, false), follow).pipe(
    Effect.andThen(options.outage.passed),
    // Whatever it was: a member that ended here would leave its partitions to nobody.
    Effect.catchCause((cause) => options.outage.failed("A lease could not be renewed", cause)),
    Effect.annotateLogs({ subscription: name })
  )

  // Nobody waits for its end: it may hold a connection that does not answer.
  yield* Effect.acquireRelease(
    options.hints.pipe(Stream.runForEach(() => Queue.offer(renewNow, undefined)), Effect.forkDetach),
    (hints) => Effect.forkDetach(Fiber.interrupt(hints))
  )
  const member = yield* renew.pipe(
    // The others learn that their shares are smaller now.
    Effect.andThen(hint),
    Effect.andThen(Effect.forever(Effect.andThen(
      Effect.timeoutOption(Queue.take(renewNow), Duration.times(options.lease, policies.renewAfter)),
      renew
    ))),
    Effect.forkScoped
  )

  const leave = Effect.gen(function*() {
    yield* Fiber.interrupt(member)
    const all = Array.from(running.values())
    yield* Effect.forEach(all, stop, { concurrency: "unbounded", discard: true })
    yield* Scope.close(handlers, Exit.void)
    yield* leases.release(all.map(({ claim, progress }) => ({ claim, cursor: progress.cursor })))
    yield* leases.leave
    yield* hint
    yield* Metric.update(owned, 0)
  }).pipe(
    Effect.timeoutOption(Duration.sum(options.stopTimeout, policies.leaveMargin)),
    Effect.catchCause((cause) =>
      Effect.logWarning("Partitions were not handed over, others take them when the lease is over", cause)
    ),
    Effect.annotateLogs({ subscription: name })
  )
  // In a fiber of its own: a finalizer cannot be interrupted, and this one gives up after a while.
  yield* Effect.addFinalizer(() => Effect.flatMap(Effect.forkDetach(leave), Fiber.await))
})
