/**
 * Keeps the generations running that a process has the code for, and switches readers to one that has caught up.
 *
 * **Details**
 *
 * Looks at what there is when somebody says that it changed, and every so often. A generation is run by every process whose
 * projection has its version: so the old one goes on while processes of the old version live, and the one that a script asks
 * for is built by the servers. The generation of an inline projection is run by its subscription until it has caught up.
 *
 * @since 0.1.0
 */
import { EventStore } from "@strata/event-store/EventStore"
import * as Outage from "@strata/postgres/Outage"
import { Postgres } from "@strata/postgres/Postgres"
import * as SqlState from "@strata/postgres/SqlState"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { describe } from "./Folding.ts"
import { type BuildOptions, type Generation, type Generations, nearly } from "./Generation.ts"
import * as GenerationRun from "./GenerationRun.ts"
import type { InlineRun } from "./InlineRun.ts"
import type { ParkedKey } from "./ParkedKeys.ts"
import type { Projection } from "./Projection.ts"
import type { ProjectionProgress } from "./ProjectionProgress.ts"
import * as SharedPages from "./SharedPages.ts"

/**
 * What watching needs.
 *
 * @category options
 * @since 0.1.0
 */
export interface WatchOptions<E> {
  readonly projections: ReadonlyArray<Projection>
  readonly generations: Generations
  readonly progress: ProjectionProgress
  /** Reads what there is into the progress. */
  readonly look: Effect.Effect<ReadonlyArray<Generation>, E>
  /** The keys of a generation that wait. */
  readonly parked: (generation: Generation) => Effect.Effect<ReadonlyArray<ParkedKey>, E>
  /** Wakes all who watch. */
  readonly channel: string
  readonly build: BuildOptions
  readonly inline: InlineRun
  readonly run: Pick<GenerationRun.RunOptions, "batchSize" | "permits">
}

/**
 * Opens the projections, and runs their generations until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*<E>(
  options: WatchOptions<E>
): Effect.fn.Return<void, never, EventStore | Postgres | Scope.Scope> {
  const { channel, generations, progress } = options
  const postgres = yield* Postgres
  const store = yield* EventStore
  const pages = yield* SharedPages.make(store)
  const running = yield* FiberMap.make<number>()
  const watched = yield* FiberMap.make<number>()
  const hints = yield* Queue.sliding<void>(1)
  const rates = new Map<number, number | null>()
  const hint = postgres.wake(channel)
  const outage = Outage.make()

  /** Says why a projection does not run here, and goes on with the others. */
  const named = (name: string) => <A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<void, never, R> =>
    patiently(work, outage).pipe(
      Effect.andThen(progress.failedHere(name, undefined)),
      Effect.catchCause((cause) =>
        Cause.hasInterrupts(cause) ? Effect.interrupt : Effect.andThen(
          Effect.logError("A projection could not be started", cause),
          progress.failedHere(name, messageOf(cause))
        )
      ),
      Effect.annotateLogs({ projection: name })
    )

  const start = (projection: Projection, generation: Generation) =>
    GenerationRun.run(projection, generation, {
      ...options.run,
      rate: ({ id }) => rates.get(id) ?? null,
      reached: progress.told
    }).pipe(
      named(projection.name),
      Effect.andThen(Effect.never),
      Effect.scoped,
      Effect.provideService(EventStore, pages),
      Effect.provideService(Postgres, postgres)
    )

  const follow = Effect.fnUntraced(function*(all: ReadonlyArray<Generation>) {
    const isInline = ({ applied }: Generation) => applied === "inline"
    for (const [id] of running) {
      if (!all.some((each) => each.id === id && !isInline(each))) yield* FiberMap.remove(running, id)
    }
    for (const [id] of watched) {
      if (!all.some((each) => each.id === id && isInline(each))) yield* FiberMap.remove(watched, id)
    }
    for (const generation of all) {
      rates.set(generation.id, generation.state === "building" ? generation.rate : null)
      const projection = options.projections.find(({ name, version }) =>
        name === generation.name && version === generation.version
      )
      if (projection === undefined) continue
      yield* isInline(generation)
        ? FiberMap.run(watched, generation.id, named(projection.name)(options.inline.watch(generation)), {
          onlyIfMissing: true
        })
        : FiberMap.run(running, generation.id, start(projection, generation), { onlyIfMissing: true })
    }
  })

  const isNear = Effect.fnUntraced(function*({ id, name }: Generation) {
    const known = progress.all(name).find(({ generation }) => generation.id === id)
    return known !== undefined && known.state === "running" && FiberMap.hasUnsafe(running, id) &&
      known.position + nearly >= (yield* store.head)
  })

  /** Appends apply facts to what has caught up of inline projections. */
  const joinReady = Effect.fnUntraced(function*(all: ReadonlyArray<Generation>) {
    for (const generation of all) {
      if (generation.state !== "live" || generation.applied !== "joining" || !(yield* isNear(generation))) continue
      yield* generations.join(generation.name).pipe(
        Effect.tap(() => hint),
        Effect.catchTag("GenerationBehind", (behind) => Effect.logDebug(behind.message))
      )
    }
  })

  /** Readers are switched when the new one has caught up, and nothing of it waits. */
  const switchReady = Effect.fnUntraced(function*(all: ReadonlyArray<Generation>) {
    for (const { id, manual, name, number, state } of all) {
      const known = progress.all(name).find(({ generation }) => generation.id === id)
      if (state !== "building" || manual || known === undefined || !FiberMap.hasUnsafe(running, id)) continue
      const head = yield* store.head
      if (known.position + nearly < head || (yield* options.parked(known.generation)).length > 0) continue
      yield* generations.switchTo(name, number).pipe(
        Effect.tap(() => Effect.logInfo(`Readers of projection ${name} see generation ${number} now`)),
        Effect.tap(() => hint),
        Effect.catchTag("GenerationBehind", (behind) => Effect.logDebug(behind.message))
      )
    }
  })

  const round = Effect.gen(function*() {
    const all = yield* untraced(options.look)
    yield* follow(all)
    yield* untraced(switchReady(all))
    yield* untraced(joinReady(all))
    yield* outage.passed
    return all.some(({ applied, state }) => state === "building" || state === "live" && applied === "joining")
  }).pipe(
    Effect.catchCauseIf(
      (cause) => !Cause.hasInterrupts(cause),
      (cause) => Effect.as(outage.failed("Projections could not be looked after", cause), false)
    )
  )

  yield* postgres.wakeups(channel).pipe(
    Stream.runForEach(() => Queue.offer(hints, undefined)),
    Effect.forkScoped
  )
  // Who reads finds the tables of projections that are new, once this is built.
  yield* Effect.forEach(
    options.projections,
    (projection) => named(projection.name)(generations.open(projection, options.build)),
    { discard: true }
  )
  yield* Effect.gen(function*() {
    yield* hint
    while (true) {
      const building = yield* round
      yield* Effect.ignore(Queue.take(hints).pipe(Deadline.within(building ? "100 millis" : "1 second")))
    }
  }).pipe(
    // Whoever started it may be in a hurry, or try again; it goes on.
    Deadline.without,
    RetryPolicy.outermost,
    Effect.forkScoped
  )
})

const untraced = Effect.withTracerEnabled(false)

/** Waits for what time may mend: a server that starts, a lock, a full disk. */
const patiently = <A, E, R>(effect: Effect.Effect<A, E, R>, outage: Outage.Outage): Effect.Effect<A, E, R> =>
  effect.pipe(
    Effect.sandbox,
    Effect.tapError((cause) =>
      mayPass(cause) ? outage.failed("A projection waits for the database", cause) : Effect.void
    ),
    RetryPolicy.retry({
      policy: RetryPolicy.endless,
      classify: (cause: Cause.Cause<unknown>) => mayPass(cause) ? FailureClass.transient : FailureClass.permanent,
      idempotent: true
    }),
    Effect.catch((cause) => Effect.failCause(cause))
  )

const mayPass = <E>(cause: Cause.Cause<E>): boolean => {
  const errors = errorsOf(cause)
  return errors.length > 0 && !Cause.hasInterrupts(cause) &&
    errors.every((error) => passing.has(SqlState.classify(error)))
}

const passing: ReadonlySet<SqlState.ErrorClass> = new Set(["retryable", "unknown-outcome", "disk-full"])

const errorsOf = <E>(cause: Cause.Cause<E>): ReadonlyArray<unknown> =>
  cause.reasons.flatMap((reason): ReadonlyArray<unknown> =>
    Cause.isFailReason(reason) ? [reason.error] : Cause.isDieReason(reason) ? [reason.defect] : []
  )

const messageOf = <E>(cause: Cause.Cause<E>): string => errorsOf(cause).map(describe).join("; ")
