/**
 * Works on the messages of a queue.
 *
 * **When to use**
 *
 * `layer` where a program runs workers, `run` where a fiber of its own is wanted.
 *
 * **Details**
 *
 * - Messages are claimed in batches under a lease, and renewed while the worker lives. What is done is told in batches too.
 *   After a crash the lease runs out, and others get what was left.
 * - A handler that fails is tried again by the queue's retry policy, with the time stored; in the end the message is a dead letter.
 *   `Handling.Snooze` puts it off, `Handling.Reject` gives it up.
 * - When the scope closes the worker gives back what it has not begun, waits for what it runs, and tells what became of it.
 *
 * **Gotchas**
 *
 * At least once: a message whose handler succeeded is handled again when the worker dies before that was told. `Inbox` makes the
 * effect happen once.
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Pace from "@strata/resilience/retry/Pace"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import * as Claims from "./consuming/Claims.ts"
import * as Handling from "./consuming/Handling.ts"
import * as HeaderFilter from "./consuming/HeaderFilter.ts"
import { done, type Held, Holdings, type Lease, type Outcome, released } from "./consuming/Holdings.ts"
import { LowWater } from "./consuming/LowWater.ts"
import { type Message, messageOf } from "./Message.ts"
import { PayloadStoreError } from "./PayloadStore.ts"
import type { Queue } from "./Queue.ts"
import type { QueueError } from "./QueueError.ts"
import { QueuePolicies } from "./QueuePolicies.ts"
import { channelOf, Queues } from "./Queues.ts"
import * as Payload from "./sending/Payload.ts"
import * as StoredPayload from "./sending/StoredPayload.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * How a worker works. All of it has defaults.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<in E = unknown> {
  /** What failures and reports call it. Default: `worker`. */
  readonly name?: string | undefined
  /** Messages handled at once. Default: 10. */
  readonly concurrency?: number | undefined
  /** Messages that are claimed ahead at most. Default: 500. */
  readonly prefetch?: number | undefined
  /** Which messages it wants. Default: all. */
  readonly filter?: HeaderFilter.HeaderFilter | undefined
  /** Tells the class of a failure. Default: `Handling.classify`. */
  readonly classify?: FailureClass.Classifier<E> | undefined
}

/**
 * What became of the messages of a batch, one for each in their order; nothing, when all of them are done.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcomes<E> = ReadonlyArray<Result.Result<unknown, E>> | void

/**
 * Works until it is interrupted.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = <A, E, R>(
  queue: Queue<A>,
  handler: (message: Message<A>) => Effect.Effect<unknown, E, R>,
  options: Options<E> = {}
): Effect.Effect<never, QueueError, R | Queues | Postgres> =>
  Effect.scoped(Effect.andThen(start(queue, one(handler), 1, options), Effect.never))

/**
 * Works in batches until it is interrupted: the handler gets as many messages as are there, at most `size`. Where it fails, all of
 * them have failed.
 *
 * @category constructors
 * @since 0.1.0
 */
export const runBatches = <A, E, R>(
  queue: Queue<A>,
  handler: (messages: ReadonlyArray<Message<A>>) => Effect.Effect<Outcomes<E>, E, R>,
  options: Options<E> & { readonly size: number }
): Effect.Effect<never, QueueError, R | Queues | Postgres> =>
  Effect.scoped(Effect.andThen(start(queue, handler, options.size, options), Effect.never))

/**
 * Works as long as the layer is there.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <A, E, R>(
  queue: Queue<A>,
  handler: (message: Message<A>) => Effect.Effect<unknown, E, R>,
  options: Options<E> = {}
): Layer.Layer<never, QueueError, Exclude<R, Scope.Scope> | Queues | Postgres> =>
  Layer.effectDiscard(start(queue, one(handler), 1, options))

/**
 * Works in batches as long as the layer is there. See `runBatches`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBatches = <A, E, R>(
  queue: Queue<A>,
  handler: (messages: ReadonlyArray<Message<A>>) => Effect.Effect<Outcomes<E>, E, R>,
  options: Options<E> & { readonly size: number }
): Layer.Layer<never, QueueError, Exclude<R, Scope.Scope> | Queues | Postgres> =>
  Layer.effectDiscard(start(queue, handler, options.size, options))

/** A handler of one message, for batches of one. */
const one =
  <A, E, R>(handler: (message: Message<A>) => Effect.Effect<unknown, E, R>) =>
  (messages: ReadonlyArray<Message<A>>): Effect.Effect<void, E, R> => Effect.asVoid(handler(messages[0]!))

// ------------------------------------------------------------------------------------------------- implementation

/** Starts a worker that works until the scope closes. */
const start = Effect.fnUntraced(function*<A, E, R>(
  queue: Queue<A>,
  handler: (messages: ReadonlyArray<Message<A>>) => Effect.Effect<Outcomes<E>, E, R>,
  size: number,
  options: Options<E>
) {
  const { concurrency = 10, name = "worker", prefetch = 500 } = options
  const postgres = yield* Postgres
  const queues = yield* Queues
  const policies = yield* QueuePolicies
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  const claims = Claims.make(postgres)
  let stored = yield* queues.declare(queue)
  const filter = options.filter === undefined ? undefined : HeaderFilter.toJsonPath(options.filter)

  /** Again and again while the database is not there. */
  const patiently = RetryPolicy.retry({ policy: policies.reconnect, idempotent: true })

  const holdings = new Holdings()
  const lowWater = new LowWater()
  const millis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  let isOpen = true
  let running = 0

  // ------------------------------------------------------------------------------------------------------ handling

  const idle: Array<(held: ReadonlyArray<Held>) => void> = []
  const hungry = makeSignal()
  const finished = makeSignal()
  const news: Array<Lease> = []

  /** The next messages, when there are some; none when the worker stops. */
  const next: Effect.Effect<ReadonlyArray<Held>> = Effect.suspend(() => {
    const held = isOpen ? holdings.next(size) : []
    if (!isStocked()) hungry.set()
    if (held.length > 0 || !isOpen) return Effect.succeed(held)
    return Effect.callback((resume) => {
      idle.push((held) => resume(Effect.succeed(held)))
    })
  })

  const dispatch = (): void => {
    while (idle.length > 0) {
      const held = isOpen ? holdings.next(size) : []
      if (held.length === 0 && isOpen) return
      idle.shift()!(held)
    }
  }

  const record = ({ claimed, lease }: Held, outcome: Outcome): void => {
    lease.record(claimed.id, outcome)
    if (lease.open > 0) return
    news.push(lease)
    finished.set()
  }

  const classify = options.classify ?? Handling.classify
  /** That its time was up, or its payload not to be had now, says no more of a message than that it was not done. */
  const classifier = (error: E | Deadline.DeadlineExceeded | PayloadStoreError): FailureClass.FailureClass =>
    error instanceof Deadline.DeadlineExceeded || error instanceof PayloadStoreError
      ? FailureClass.transient
      : classify(error)

  const failed = (held: Held, cause: Cause.Cause<E | Deadline.DeadlineExceeded | PayloadStoreError>): Outcome => {
    const { attempts, claimedAt, firstAt, id } = held.claimed
    const { maxAttempts, retry } = stored.settings
    const judged = Handling.judge(cause, {
      id,
      attempt: attempts,
      firstAt,
      now: claimedAt,
      worker: name,
      random: random.nextDoubleUnsafe()
    }, { classifier, retry, maxAttempts: maxAttempts ?? retry.attempts })
    if (judged === undefined) return released
    return "dead" in judged ? { _tag: "Dead", dead: judged.dead } : { _tag: "Retried", retried: judged.retried }
  }

  /** The message, if it is to be handled; what is not is settled at once. */
  const open = (held: Held): Message<A> | undefined => {
    const { maxAge } = stored.settings
    const { claimed } = held
    if (maxAge !== undefined && claimed.attempts === 1 && Handling.isOlder(claimed, maxAge)) {
      record(held, { _tag: "Dead", dead: Handling.expired(claimed, maxAge, name) })
      return undefined
    }
    const payload = Payload.decode(queue, claimed)
    if (Result.isSuccess(payload)) return messageOf(queue.name, claimed, payload.success)
    record(held, { _tag: "Dead", dead: Handling.unreadable(claimed.id, claimed.attempts, payload.failure, name) })
    return undefined
  }

  /** With its payload at hand; nothing, when that could not be fetched and the try has failed. */
  const fetched = (held: Held): Effect.Effect<ReadonlyArray<Held>> =>
    !StoredPayload.isApart(held.claimed.storedAt)
      ? Effect.succeed([held])
      : StoredPayload.fetch(queues.payloads, held.claimed).pipe(
        (fetch) =>
          Effect.onExitPrimitive(fetch, (exit) => {
            if (Exit.isFailure(exit)) record(held, failed(held, exit.cause))
            return undefined
          }),
        Effect.matchCause({ onFailure: () => [], onSuccess: (claimed) => [{ claimed, lease: held.lease }] })
      )

  const handle = (all: ReadonlyArray<Held>): Effect.Effect<void, never, R> =>
    all.some(({ claimed }) => StoredPayload.isApart(claimed.storedAt))
      ? Effect.flatMap(Effect.forEach(all, fetched), (held) => handleAtHand(held.flat()))
      : handleAtHand(all)

  const handleAtHand = (all: ReadonlyArray<Held>): Effect.Effect<void, never, R> => {
    const messages: Array<Message<A>> = []
    const begun = all.filter((held) => {
      const message = open(held)
      return message !== undefined && messages.push(message) > 0
    })
    if (begun.length === 0) return Effect.void
    const { timeout } = stored.settings
    const once = Effect.suspend(() => handler(messages))
    running += begun.length
    return Effect.onExitPrimitive(
      Effect.exit(timeout === undefined ? once : Deadline.within(timeout)(once)),
      (exit) => {
        running -= begun.length
        const whole = Exit.isSuccess(exit) ? exit.value : Exit.failCause(exit.cause)
        for (const [index, held] of begun.entries()) record(held, outcomeOf(held, whole, index))
        return undefined
      }
    )
  }

  const outcomeOf = (
    held: Held,
    whole: Exit.Exit<Outcomes<E>, E | Deadline.DeadlineExceeded>,
    index: number
  ): Outcome => {
    if (Exit.isFailure(whole)) return failed(held, whole.cause)
    const own = whole.value?.[index]
    return own === undefined || Result.isSuccess(own) ? done : failed(held, Cause.fail(own.failure))
  }

  const runner: Effect.Effect<void, never, R> = Effect.flatMap(
    next,
    (held) => held.length === 0 ? Effect.void : Effect.andThen(handle(held), runner)
  )

  // ------------------------------------------------------------------------------------------------------ claiming

  /** Messages to hold: more while they are gone before the next ones come. */
  let wanted = Math.min(prefetch, concurrency * size)
  const isStocked = (): boolean => holdings.waiting > wanted / 2 || holdings.bytes > policies.claimSize / 2
  const claim = Effect.gen(function*() {
    const limit = wanted - holdings.waiting
    const bytes = policies.claimSize - holdings.bytes
    const begun = millis()
    const above = lowWater.begin(begun)
    const found = yield* claims.claim({
      queue: stored.id,
      worker: name,
      lease: stored.settings.lease,
      limit,
      suspects: Math.max(0, concurrency * size - running - holdings.waiting),
      above,
      filter,
      bytes
    })
    lowWater.end(above, found, begun, millis())
    const wasEmpty = holdings.waiting === 0
    if (found.length > 0) holdings.add(found)
    const isFull = found.length >= limit || found.reduce((sum, { size }) => sum + (size ?? 0), 0) >= bytes
    if (found.length >= limit && wasEmpty) wanted = Math.min(prefetch, wanted * 2)
    dispatch()
    return isFull
  })

  const hinted = makeSignal()

  /** Until somebody says that there may be something, or the time of something has come. */
  const untilHinted = Effect.flatMap(
    patiently(claims.nextDue(stored.id)),
    (due = policies.poll) => Effect.option(Deadline.within(Duration.min(due, policies.poll))(hinted.wait))
  )

  /** A claim is not interrupted: what it took would be nobody's until its lease has run out. */
  const claiming: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    if (!isOpen) return Effect.void
    const waited = Effect.flatMap(patiently(Effect.uninterruptible(claim)), (isMore) => {
      if (isStocked()) return hungry.wait
      return isMore ? Effect.void : untilHinted
    })
    return Effect.andThen(waited, claiming)
  })

  // ------------------------------------------------------------------------------------------------------ settling

  const forget = (lease: Lease) => {
    if (lease.open === 0 || lease.isLost) holdings.leases.delete(lease.token)
  }

  const oneAtATime = Semaphore.makeUnsafe(1)

  const settle = (leases: ReadonlyArray<Lease>): Effect.Effect<void> =>
    oneAtATime.withPermit(Effect.gen(function*() {
      const plain = leases.filter(({ isPart, isPlain, open }) => isPlain && open === 0 && !isPart)
      if (plain.length > 0) {
        for (const lease of plain) lease.take()
        yield* again(claims.settleLeases(plain.map(({ token }) => token), stored.settings.history !== undefined))
      }
      for (const lease of leases) {
        if (!lease.hasNews) continue
        const said = lease.take()
        lease.isPart = lease.open > 0
        const settled = yield* again(claims.settle(lease.token, said))
        if (Option.isNone(settled) || !settled.value) lease.isLost = true
        // What waited behind a key may be claimed now.
        hinted.set()
      }
      for (const lease of leases) forget(lease)
    }))

  /** What the database refuses for good is given up: the leases run out, and others get what they held. */
  const again = <A>(statement: Effect.Effect<A, SqlError>) =>
    patiently(statement).pipe(
      Effect.tapError((error) =>
        Effect.logError(`Queue ${queue.name}: what became of messages was not written`, error)
      ),
      Effect.option
    )

  const settling = Effect.forever(
    Effect.andThen(finished.wait, Effect.suspend(() => settle(news.splice(0))))
  )

  /** What is done of leases of which something still runs. */
  const flushing = Effect.suspend(() =>
    settle([...holdings.leases.values()].filter(({ hasNews, open }) => hasNews && open > 0))
  ).pipe(Pace.every(policies.flush))

  const extending = Effect.forever(
    Effect.suspend(() => {
      const tokens = [...holdings.leases.keys()]
      return tokens.length === 0
        ? Effect.void
        : Effect.map(patiently(claims.extend(tokens, stored.settings.lease)), (kept) => {
          for (const token of tokens) {
            const lease = holdings.leases.get(token)
            if (lease === undefined || kept.has(token)) continue
            lease.isLost = true
            forget(lease)
          }
        })
    }).pipe((extend) => Effect.suspend(() => Pace.after(Duration.times(stored.settings.lease, 1 / 3))(extend)))
  )

  const refreshing = Effect.map(patiently(queues.find(queue)), (found) => {
    stored = found
  }).pipe(Pace.every(policies.refresh))

  // ------------------------------------------------------------------------------------------------------ life

  const claimer = yield* claiming.pipe(
    Effect.tapError((error) => Effect.logError(`Queue ${queue.name}: the worker stops, it cannot claim`, error)),
    Effect.forkScoped
  )
  yield* Effect.forkScoped(settling)
  yield* Effect.forkScoped(flushing)
  yield* Effect.forkScoped(extending)
  yield* Effect.forkScoped(refreshing)
  yield* postgres.wakeups(channelOf(stored.id)).pipe(
    Stream.runForEach(() => Effect.sync(hinted.set)),
    Effect.forkScoped
  )
  const runners = yield* Effect.forEach(
    Array.from({ length: concurrency }),
    () => Effect.forkScoped(runner, { startImmediately: true })
  )
  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      isOpen = false
      hungry.set()
      hinted.set()
      yield* Effect.option(Deadline.within(policies.stop)(Fiber.await(claimer)))
      for (const held of holdings.giveBack()) record(held, released)
      dispatch()
      yield* Effect.option(Deadline.within(policies.stop)(Fiber.awaitAll(runners)))
      yield* Fiber.interruptAll(runners)
      // After what is just being told, and not for ever where the database is not there: then the leases run out.
      const rest = Effect.suspend(() => settle([...new Set([...news.splice(0), ...holdings.leases.values()])]))
      yield* Effect.option(Deadline.within(policies.stop)(rest))
    })
  )
})

/** Is set any number of times, and wakes up whoever waits once. */
const makeSignal = () => {
  let isSet = false
  let resume: (() => void) | undefined
  return {
    set: (): void => {
      if (resume === undefined) {
        isSet = true
        return
      }
      const go = resume
      resume = undefined
      go()
    },
    wait: Effect.callback<void>((answer) => {
      if (isSet) {
        isSet = false
        return answer(Effect.void)
      }
      resume = () => answer(Effect.void)
      return Effect.sync(() => {
        resume = undefined
      })
    })
  }
}
