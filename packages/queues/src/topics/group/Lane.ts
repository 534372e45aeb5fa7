/**
 * Works on partitions that a member has, one batch after the other.
 *
 * **Details**
 *
 * Partitions that are read together (see `Pages`) share a look at the topic, a transaction and a batch of the handler, which gets messages
 * in the order of the topic. Whether partitions come and go is looked at between two batches.
 *
 * A batch that fails is handled again message by message, each with a transaction of its own. A message that fails then is put aside (see
 * `Retries`), and so are those of its key that come later, as long as it is not over.
 *
 * @since 0.1.0
 */
import * as SqlState from "@strata/postgres/SqlState"
import * as Timestamp from "@strata/postgres/Timestamp"
import { TransactionError } from "@strata/postgres/TransactionError"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Pace from "@strata/resilience/retry/Pace"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import { isSqlError, type SqlError } from "effect/sql/SqlError"
import * as Handling from "../../consuming/Handling.ts"
import * as Signal from "../../consuming/Signal.ts"
import * as Tracing from "../../consuming/Tracing.ts"
import type { QueueSettings } from "../../QueueSettings.ts"
import type { Topic, TopicMessage } from "../Topic.ts"
import { Fenced } from "../TopicError.ts"
import type * as TopicLog from "../TopicLog.ts"
import type * as TopicMetrics from "../TopicMetrics.ts"
import type { Policies } from "../TopicPolicies.ts"
import type { Feed } from "./Feed.ts"
import type { Move, Offsets } from "./Offsets.ts"
import * as Pages from "./Pages.ts"
import type { Cohort, Held } from "./Pages.ts"
import type { Diverted, Retries } from "./Retries.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * A lane, and the partitions in it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lane {
  readonly held: Set<Held>
  /** There may be something to do. */
  readonly hinted: Signal.Signal
  /** Held while a batch is at work. */
  readonly gate: Semaphore.Semaphore
}

/**
 * What a lane needs.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<A, E, R> {
  readonly group: string
  readonly topics: ReadonlyMap<number, Topic<A>>
  readonly handler: (messages: Arr.NonEmptyReadonlyArray<TopicMessage<A>>) => Effect.Effect<unknown, E, R>
  readonly delivery: "transactional" | "atLeastOnce"
  /** Holds up who has handled a full page of so many messages, since a moment in nanoseconds: see `throttle`. */
  readonly throttle: (count: number, begun: bigint) => Effect.Effect<void>
  readonly classify: FailureClass.Classifier<E> | undefined
  readonly isOutage: ((error: E) => boolean) | undefined
  readonly worker: string
  readonly feed: Feed
  readonly offsets: Offsets
  readonly retries: Retries
  /** Of the queue in which failed messages wait, as they are now. */
  readonly settings: Effect.Effect<QueueSettings>
  /** Hints that a topic had so far. */
  readonly hintsOf: (topic: number) => number
  /** Others have these, or what was read of them is read again. */
  readonly lost: (fenced: Fenced) => Effect.Effect<void>
  readonly metrics: TopicMetrics.GroupMetrics
  readonly policies: Pick<Policies, "poll" | "reconnect" | "checkpoint" | "commit">
}

/**
 * A lane with nothing in it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (): Lane => ({ held: new Set(), hinted: Signal.make(), gate: Semaphore.makeUnsafe(1) })

/**
 * So that all lanes of a member together catch up no faster than so many messages a second.
 *
 * @category constructors
 * @since 0.1.0
 */
export const throttle = (rate: number | undefined, clock: Clock.Clock): Options<never, never, never>["throttle"] => {
  if (rate === undefined) return () => Effect.void
  /** Until then what was handled so far has taken its time. */
  let until = 0n
  return (count, begun) =>
    Effect.suspend(() => {
      until = (begun > until ? begun : until) + BigInt(Math.round(count / rate * 1e9))
      const left = Number(until - clock.monotonicTimeNanosUnsafe()) / 1e6
      return left <= 0 ? Effect.void : Pace.after(left)(Effect.void)
    })
}

/** Why a batch was not done. */
type Failed<E> = E | Fenced | SqlError | TransactionError

/**
 * Works until it is interrupted.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*<A, E, R>(
  lane: Lane,
  options: Options<A, E, R>
): Effect.fn.Return<never, never, R> {
  const { classify = Handling.classify, handler, isOutage = never, metrics, offsets, policies, retries } = options
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  const traced = yield* Tracing.make(options.group)
  const isTransactional = options.delivery === "transactional"
  const pages = Pages.make({ ...options, held: lane.held })

  /** As long as the database cannot be reached, or whatever the handler cannot do without. */
  const patiently = RetryPolicy.retry({
    policy: policies.reconnect,
    idempotent: true,
    classify: (error: Failed<E>) =>
      isOfTheDatabase(error) || isHandlers(error) && isOutage(error) ? FailureClass.transient : FailureClass.permanent
  })

  // --------------------------------------------------------------------------------------------- what is done with it

  /**
   * Handles messages, puts others aside, and moves partitions: together, or as near to that as can be. Gives whether it is saved how far
   * they are; what is not, is by and by.
   */
  const commit = (
    topic: number,
    moves: ReadonlyArray<Move>,
    messages: ReadonlyArray<TopicMessage<A>>,
    diverted: ReadonlyArray<Diverted>
  ) => {
    const [first, ...rest] = messages
    const handled = first === undefined
      ? Effect.void
      : traced(
        messages.map((message) => ({
          claimed: {
            id: message.position,
            attempts: 1,
            correlationId: message.correlationId,
            traceparent: message.traceparent ?? null
          }
        })),
        Effect.suspend(() => handler([first, ...rest]))
      )
    if (!isTransactional && diverted.length === 0) return Effect.as(handled, false)
    const committed = isTransactional
      ? offsets.moveWith(topic, moves, Effect.andThen(handled, retries.divert(diverted)))
      : Effect.andThen(handled, offsets.moveWith(topic, moves, retries.divert(diverted)))
    return Effect.as(committed, true)
  }

  /** What becomes of a message whose handler failed; undefined when it was interrupted. */
  const judge = (cause: Cause.Cause<Failed<E>>, settings: QueueSettings) => {
    const now = Timestamp.fromMicros(BigInt(clock.currentTimeMillisUnsafe()) * 1000n)
    return Handling.judge(cause, {
      id: 0n,
      attempt: 1,
      firstAt: now,
      now,
      worker: options.worker,
      random: random.nextDoubleUnsafe()
    }, {
      // What the database says is not the handler's.
      classifier: (error) => isHandlers(error) ? classify(error) : Handling.classify(error),
      retry: settings.retry,
      maxAttempts: settings.maxAttempts ?? settings.retry.attempts
    })
  }

  const moveOf = (held: Held, to: bigint): Move => ({
    partition: held.partition,
    epoch: held.epoch,
    from: held.saved,
    to,
    life: held.life
  })

  const moved = (held: Held, to: bigint, isSaved: boolean) => {
    if (isSaved) held.saved = to
    held.cursor = to
  }

  const aside = (held: Held, message: TopicLog.StoredMessage, because: Diverted["because"]) =>
    patiently(
      commit(held.topic, [moveOf(held, message.position)], [], [
        { topic: options.topics.get(held.topic)!.name, message, because }
      ])
    )

  /** Puts a message aside whose handler failed. */
  const failed = (held: Held, message: TopicLog.StoredMessage, busy: Set<string>, cause: Cause.Cause<Failed<E>>) =>
    Effect.flatMap(options.settings, (settings): Effect.Effect<void, Failed<E>, R> => {
      const judged = judge(cause, settings)
      if (judged === undefined) return Effect.failCause(cause)
      held.mayBeBusy = true
      if ("retried" in judged && message.key !== null) busy.add(message.key)
      return Effect.andThen(Metric.update(metrics.failures, 1), aside(held, message, judged))
    })

  /** One message after the other, from the first, of which it may be known how it failed. */
  const oneByOne = Effect.fnUntraced(function*(
    cohort: Cohort,
    messages: ReadonlyArray<Pages.Opened<A>>,
    busy: Set<string>,
    known: Cause.Cause<Failed<E>>
  ) {
    const byPartition = new Map(cohort.map((held) => [held.partition, held]))
    for (const { result, stored: message } of messages) {
      const held = byPartition.get(message.partition)!
      let isSaved = true
      if (message.key !== null && busy.has(message.key)) yield* aside(held, message, { waits: true })
      else if (Result.isFailure(result)) yield* aside(held, message, result.failure.because)
      // It was alone, so it is the one that failed.
      else if (messages.length === 1) yield* failed(held, message, busy, known)
      else {
        const move = [moveOf(held, message.position)]
        isSaved = yield* Effect.catchCause(
          patiently(commit(held.topic, move, [result.success], [])),
          (cause) => isFence(cause) ? Effect.failCause(cause) : Effect.as(failed(held, message, busy, cause), true)
        )
      }
      yield* Metric.update(metrics.messages, 1)
      moved(held, message.position, isSaved)
    }
  })

  /** In another life of the server there may be other messages where some were done: partitions begin again from what is saved. */
  const follow = (cohort: Cohort, { life }: Pages.Page<A>): Effect.Effect<void, Fenced> => {
    const outlived = cohort.filter((held) => held.life !== null && held.life !== life)
    if (outlived.length > 0) {
      const topic = options.topics.get(outlived[0]!.topic)!.name
      return Effect.fail(
        new Fenced({ group: options.group, topic, partitions: outlived.map(({ partition }) => partition) })
      )
    }
    for (const held of cohort) held.life = life
    return Effect.void
  }

  /** All at once, and one by one where that fails. */
  const handle = Effect.fnUntraced(function*(cohort: Cohort, page: Pages.Page<A>) {
    const [{ topic }] = cohort
    const { messages, seen } = page
    yield* follow(cohort, page)
    if (messages.length > 0) {
      const byPartition = new Map(cohort.map((held) => [held.partition, held]))
      const busy = new Set<string>()
      if (cohort.some(({ mayBeBusy }) => mayBeBusy)) {
        const isEmpty = yield* patiently(retries.isEmpty)
        const keys = [...new Set(messages.flatMap(({ stored: { key } }) => key === null ? [] : [key]))]
        if (!isEmpty && keys.length > 0) {
          for (const key of yield* patiently(retries.busy(keys))) busy.add(key)
        }
        if (isEmpty) {
          for (const held of cohort) held.mayBeBusy = false
        }
      }
      const ready: Array<TopicMessage<A>> = []
      const diverted: Array<Diverted> = []
      const touched = new Set<Held>()
      for (const { result, stored: message } of messages) {
        const held = byPartition.get(message.partition)!
        touched.add(held)
        if (message.key !== null && busy.has(message.key)) {
          diverted.push({ topic: options.topics.get(topic)!.name, message, because: { waits: true } })
          continue
        }
        if (Result.isSuccess(result)) ready.push(result.success)
        else diverted.push(result.failure)
      }
      const moves = [...touched].map((held) => moveOf(held, seen))
      const startedAt = clock.monotonicTimeNanosUnsafe()
      yield* Effect.catchCause(
        Effect.flatMap(patiently(commit(topic, moves, ready, diverted)), (isSaved) => {
          for (const held of touched) moved(held, seen, isSaved)
          return Metric.update(metrics.messages, messages.length)
        }),
        (cause) =>
          isFence(cause) || Cause.hasInterruptsOnly(cause)
            ? Effect.failCause(cause)
            : oneByOne(cohort, messages, busy, cause)
      )
      yield* Metric.update(metrics.batch, Number(clock.monotonicTimeNanosUnsafe() - startedAt) / 1e9)
    }
    for (const held of cohort) if (held.cursor < seen) held.cursor = seen
  })

  // ---------------------------------------------------------------------------------------------------- again and again

  const fenced = (error: Fenced) =>
    Effect.logWarning(error.message).pipe(
      Effect.andThen(Metric.update(metrics.fenced, 1)),
      Effect.andThen(Effect.sync(options.feed.forget)),
      Effect.andThen(options.lost(error))
    )

  const save = Effect.suspend(() =>
    Effect.forEach(Map.groupBy(lane.held, ({ topic }) => topic), ([topic, of]) => {
      const behind = of.filter(({ cursor, saved }) => cursor > saved)
      const moves = behind.map((held) => moveOf(held, held.cursor))
      return Effect.flatMap(offsets.pass(topic, moves), (partitions) => {
        for (const [index, held] of behind.entries()) {
          if (!partitions.includes(held.partition)) held.saved = moves[index]!.to
        }
        if (partitions.length === 0) return Effect.void
        return fenced(new Fenced({ group: options.group, topic: options.topics.get(topic)!.name, partitions }))
      })
    }, { discard: true })
  )

  const step: Effect.Effect<boolean, Failed<E>, R> = Effect.suspend(() => {
    const cohort = pages.pick()
    if (cohort === undefined) return Effect.succeed(false)
    const begun = clock.monotonicTimeNanosUnsafe()
    const read = Effect.flatMap(pages.read(cohort), (page) => {
      if (page.life !== null) return Effect.succeed(page)
      options.feed.forget()
      return Effect.andThen(offsets.live, pages.read(cohort))
    })
    return patiently(read).pipe(
      Effect.tap((page) => page.isFull ? pages.readAhead(cohort, page) : Effect.void),
      Effect.flatMap((page) =>
        Effect.andThen(
          handle(cohort, page),
          Effect.suspend(() => {
            for (const held of cohort) if (!page.isFull) held.emptyAt = page.hints
            return page.isFull ? options.throttle(page.messages.length, begun) : Effect.void
          })
        )
      ),
      Effect.as(true)
    )
  })

  const guarded = lane.gate.withPermit(step).pipe(
    Effect.catchCause((cause): Effect.Effect<boolean> => {
      const error = Cause.squash(cause)
      if (error instanceof Fenced) return Effect.as(fenced(error), true)
      // A bug, a handler that interrupts itself, or a database that refuses for good: nothing was moved, and it is tried again.
      return Effect.logError("A batch of a consumer group broke off", cause).pipe(
        Effect.andThen(Pace.after(policies.poll)(Effect.succeed(true)))
      )
    })
  )

  yield* lane.gate.withPermit(save).pipe(
    Effect.catchCause((cause) => Effect.logDebug("Positions were not saved", cause)),
    Pace.every(isTransactional ? policies.checkpoint : policies.commit),
    Effect.withTracerEnabled(false),
    Effect.forkChild
  )
  return yield* Effect.forever(
    Effect.flatMap(
      guarded,
      (found) =>
        found ? Effect.void : Effect.map(Effect.exit(Deadline.within(policies.poll)(lane.hinted.wait)), (exit) => {
          // Hints may get lost, so it looks now and then.
          if (exit._tag === "Failure") {
            for (const held of lane.held) {
              held.emptyAt = -1
            }
          }
        })
    )
  )
})

const never = () => false

const isFence = (cause: Cause.Cause<unknown>): boolean => Cause.squash(cause) instanceof Fenced

const isHandlers = <E>(error: Failed<E>): error is E =>
  !(error instanceof Fenced || error instanceof TransactionError || isSqlError(error))

const isOfTheDatabase = (error: unknown): boolean => passing.has(SqlState.classify(error))

const passing: ReadonlySet<SqlState.ErrorClass> = new Set(["retryable", "unknown-outcome", "disk-full"])
