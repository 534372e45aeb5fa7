/**
 * The time by which an answer is of use, which travels with the request: to every effect it runs, into the time-outs of
 * SQL statements, and in a header to the next service.
 *
 * **When to use**
 *
 * `within` where a request or a task comes in; nobody below needs a time-out of their own. Where one is wanted anyway,
 * `within` only ever shortens: a step that may take five seconds ends with the request that has one left.
 *
 * **Details**
 *
 * A deadline is a point of this process's monotonic clock, which nobody sets. What travels to another process is the
 * time that is left.
 *
 * **Gotchas**
 *
 * Work that cannot be interrupted is waited for, as everywhere in Effect. A statement in a transaction ends in time when
 * the server was told with `statementTimeout`.
 *
 * **Example** (An inner limit cannot outlast the outer one)
 *
 * ```ts import.meta.vitest
 * import * as Deadline from "@strata/resilience/bounds/Deadline"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.never.pipe(
 *   Deadline.within("1 minute"),
 *   Deadline.within("5 millis"),
 *   Effect.catchTag("DeadlineExceeded", (error) => Effect.succeed(error.message))
 * )
 *
 * await Effect.runPromise(program) // => "Not done within 5ms"
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stackless from "../Stackless.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * A deadline: a reading of the monotonic clock in nanoseconds, and how long there was when it was set.
 *
 * @category models
 * @since 0.1.0
 */
export interface Deadline {
  readonly at: bigint
  readonly allowed: Duration.Duration
}

/**
 * The deadline of this fiber. None unless somebody set one.
 *
 * @category references
 * @since 0.1.0
 */
export const Current: Context.Reference<Option.Option<Deadline>> = Context.Reference<Option.Option<Deadline>>(
  "@strata/resilience/Deadline/Current",
  { defaultValue: () => Option.none() }
)

/**
 * The time is up.
 *
 * @category errors
 * @since 0.1.0
 */
export class DeadlineExceeded extends Schema.TaggedError<DeadlineExceeded>("@strata/resilience/DeadlineExceeded")(
  "DeadlineExceeded",
  { allowed: Schema.Duration }
) {
  override get message(): string {
    return `Not done within ${Duration.format(this.allowed)}`
  }
}

const exceededOf = ({ allowed }: Deadline): DeadlineExceeded => Stackless.make(() => new DeadlineExceeded({ allowed }))

// ---------------------------------------------------------------------------------------------------- combinators

/**
 * Gives an effect a deadline: this long from now, or the one there is when that is sooner. When it passes, the effect is
 * interrupted. When it has passed already, the effect is not started.
 *
 * @category combinators
 * @since 0.1.0
 */
export const within = (
  duration: Duration.Input
): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | DeadlineExceeded, R> => {
  const allowed = Duration.fromInputUnsafe(duration)
  return <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.contextWith((context: Context.Context<R>): Effect.Effect<A, E | DeadlineExceeded, R> => {
      const now = Context.get(context, Clock.Clock).monotonicTimeNanosUnsafe()
      const current = Option.getOrUndefined(Context.get(context, Current))
      const deadline = sooner(current, now, allowed)
      if (deadline === undefined || deadline === current && deadline.at > now) return effect
      return cutOff(effect, { context, deadline, now })
    })
}

/**
 * Puts a time limit on a part of an effect that has a deadline: the deadline itself, or this long from when the part begins when
 * that is sooner.
 *
 * @category models
 * @since 0.1.0
 */
export type Enforce = <A, E, R>(
  part: Effect.Effect<A, E, R>,
  atMost?: Duration.Duration
) => Effect.Effect<A, E | DeadlineExceeded, R>

/**
 * As `within`, for an effect that is not interrupted as a whole: it is given what interrupts the part that it is put around. So the
 * rest of it may count what came of that part, or answer something else. A deadline that was there and is sooner
 * interrupts the whole, as whoever set it wants.
 *
 * @category combinators
 * @since 0.1.0
 */
export const around = <A, E, R>(
  duration: Duration.Input,
  whole: (enforce: Enforce) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | DeadlineExceeded, R> =>
  Effect.withFiber((fiber): Effect.Effect<A, E | DeadlineExceeded, R> => {
    const clock = fiber.getRef(Clock.Clock)
    const now = clock.monotonicTimeNanosUnsafe()
    const current = Option.getOrUndefined(fiber.getRef(Current))
    const deadline = sooner(current, now, Duration.fromInputUnsafe(duration))
    if (deadline === undefined || deadline === current && deadline.at > now) return whole(enforceOnly)
    if (deadline.at <= now) return Effect.fail(exceededOf(deadline))
    return Effect.provideService(whole(makeEnforce(deadline, clock)), Current, Option.some(deadline))
  })

const makeEnforce =
  (deadline: Deadline, clock: Clock.Clock): Enforce =>
  <A, E, R>(part: Effect.Effect<A, E, R>, atMost?: Duration.Duration) =>
    Effect.contextWith((context: Context.Context<R>): Effect.Effect<A, E | DeadlineExceeded> => {
      const now = clock.monotonicTimeNanosUnsafe()
      const first = atMost === undefined ? deadline : sooner(deadline, now, atMost) ?? deadline
      return cutOff(part, { context, deadline: first, now })
    })

/**
 * Runs a part in a fiber of its own, and interrupts it when its time is up. As `Effect.timeoutOrElse`, but what ends without
 * waiting for anything pays for no timer, and what has to wait for one fiber less.
 */
const cutOff = <A, E, R>(part: Effect.Effect<A, E, R>, { context, deadline, now }: {
  readonly context: Context.Context<R>
  readonly deadline: Deadline
  readonly now: bigint
}): Effect.Effect<A, E | DeadlineExceeded> => {
  if (deadline.at <= now) return Effect.fail(exceededOf(deadline))
  return Effect.callback((resume) => {
    const run = Effect.runForkWith(Context.add(context, Current, Option.some(deadline)))
    const running = run(part)
    const ended = running.pollUnsafe()
    if (ended !== undefined) return resume(ended)
    let exceeded = false
    const timer = run(Effect.andThen(
      Effect.sleep(Duration.nanos(deadline.at - now)),
      Effect.sync(() => {
        exceeded = true
        running.interruptUnsafe()
      })
    ))
    running.addObserver((exit) => {
      timer.interruptUnsafe()
      resume(exceeded ? Effect.fail(exceededOf(deadline)) : exit)
    })
    return Fiber.interruptAll([running, timer])
  })
}

/** Where somebody else keeps the deadline, or there is none: only the part's own limit. */
const enforceOnly: Enforce = (part, atMost) => atMost === undefined ? part : within(atMost)(part)

const sooner = (current: Deadline | undefined, now: bigint, allowed: Duration.Duration): Deadline | undefined => {
  if (!Duration.isFinite(allowed)) return current
  const at = now + Duration.toNanosUnsafe(allowed)
  return current !== undefined && current.at <= at ? current : { at, allowed }
}

/**
 * Runs an effect without the deadline it is under: what has to be done also when it is too late, like a compensation.
 * It is still interrupted with the fiber it runs in.
 *
 * @category combinators
 * @since 0.1.0
 */
export const without = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(effect, Current, Option.none())

// -------------------------------------------------------------------------------------------------------- reading

/**
 * The time that is left, never below zero; none without a deadline.
 *
 * @category getters
 * @since 0.1.0
 */
export const remaining: Effect.Effect<Option.Option<Duration.Duration>> = Effect.flatMap(
  Current,
  (current) =>
    Clock.clockWith((clock) =>
      Effect.succeed(Option.map(current, ({ at }) => {
        const left = at - clock.monotonicTimeNanosUnsafe()
        return left > 0n ? Duration.nanos(left) : Duration.zero
      }))
    )
)

/**
 * The shorter of a time-out and the time that is left, for whatever takes a time-out of its own.
 *
 * @category getters
 * @since 0.1.0
 */
export const shorten = (timeout: Duration.Input): Effect.Effect<Duration.Duration> =>
  Effect.map(
    remaining,
    Option.match({
      onNone: () => Duration.fromInputUnsafe(timeout),
      onSome: (left) => Duration.min(left, Duration.fromInputUnsafe(timeout))
    })
  )

/**
 * Fails when the time is up: for before a step that is expensive, or that cannot be interrupted.
 *
 * @category combinators
 * @since 0.1.0
 */
export const check: Effect.Effect<void, DeadlineExceeded> = Effect.flatMap(
  Current,
  (current) =>
    Option.isNone(current) ?
      Effect.void :
      Clock.clockWith((clock) =>
        clock.monotonicTimeNanosUnsafe() < current.value.at
          ? Effect.void
          : Effect.fail(exceededOf(current.value))
      )
)

// ------------------------------------------------------------------------------------------------------- to others

/**
 * The header that carries the milliseconds that are left.
 *
 * @category constants
 * @since 0.1.0
 */
export const header = "x-deadline-ms"

/**
 * The value of the header for a request that is sent now: whole milliseconds, rounded down, 0 when the time is up. None
 * without a deadline. `reserve` is kept for the way back.
 *
 * @category formatting
 * @since 0.1.0
 */
export const toHeader = (options: {
  readonly reserve?: Duration.Input | undefined
} = {}): Effect.Effect<Option.Option<string>> =>
  Effect.map(remaining, Option.map((left) => String(Math.floor(millisAfter(left, options.reserve)))))

/**
 * A client whose requests carry the header, where there is a deadline.
 *
 * @category clients
 * @since 0.1.0
 */
export const propagate = (client: HttpClient.HttpClient): HttpClient.HttpClient =>
  HttpClient.mapRequestEffect(client, (request) =>
    Effect.map(
      toHeader(),
      Option.match({
        onNone: () => request,
        onSome: (millis) => HttpClientRequest.setHeader(request, header, millis)
      })
    ))

/**
 * The time a header gives, at most `atMost`; none when it is not a whole number of milliseconds.
 *
 * @category parsing
 * @since 0.1.0
 */
export const fromHeader = (value: string | undefined, options: {
  readonly atMost: Duration.Input
}): Option.Option<Duration.Duration> =>
  value !== undefined && /^[0-9]{1,15}$/.test(value)
    ? Option.some(Duration.min(Duration.millis(Number(value)), Duration.fromInputUnsafe(options.atMost)))
    : Option.none()

/**
 * The `statement_timeout` for a statement that starts now: whole milliseconds, as text for
 * `select set_config('statement_timeout', $1, true)` inside the transaction. It is never above `atMost`, and never 0,
 * which would be no time-out. Fails when the time is up. `reserve` is kept for the answer to come back.
 *
 * @category getters
 * @since 0.1.0
 */
export const statementTimeout = (options: {
  readonly atMost: Duration.Input
  readonly reserve?: Duration.Input | undefined
}): Effect.Effect<string, DeadlineExceeded> =>
  Effect.flatMap(Current, (current) =>
    Effect.flatMap(remaining, (left) => {
      const atMost = Math.min(Duration.toMillis(Duration.fromInputUnsafe(options.atMost)), 2_147_483_647)
      const millis = Option.match(left, { onNone: () => atMost, onSome: (left) => millisAfter(left, options.reserve) })
      return Option.isSome(current) && millis <= 0
        ? Effect.fail(exceededOf(current.value))
        : Effect.succeed(String(Math.max(1, Math.floor(Math.min(millis, atMost)))))
    }))

const millisAfter = (left: Duration.Duration, reserve: Duration.Input = Duration.zero): number =>
  Math.max(0, Duration.toMillis(left) - Duration.toMillis(Duration.fromInputUnsafe(reserve)))
