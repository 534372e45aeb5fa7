/**
 * Refuses some of the work while this process has more than it can do, the least important first.
 *
 * **When to use**
 *
 * Ask `admit` after it is known who asks, so that a flood of strangers does not crowd out a tenant, and before anything
 * is done for the request. What was refused was never begun: it is no failure of the handler, and a circuit breaker
 * belongs inside. P0 is never refused here, so give it a `ConcurrencyLimit` of its own.
 *
 * **Details**
 *
 * Every half second the sensors are read, their largest pressure is smoothed to the load, and a `ShedLadder` says how
 * much of each class is refused. Asking costs a look into a map: nobody waits, and no database is asked.
 *
 * - Of a class, exactly its share is refused, evenly spread. It is taken from the tenants that ask for most.
 * - Requests that name their flow are refused by a hash of it, so all steps of a flow fare alike while the share stands.
 *   Run the later steps of one that was let in as `Priority.continuation`: then it is finished whatever comes.
 * - While a sensor is blind the first step of the ladder is taken, and the log says so.
 *
 * | metric | kind | labels |
 * | --- | --- | --- |
 * | `strata_load` | gauge: 1 is saturation | |
 * | `strata_load_pressure` | gauge, NaN while blind | `sensor` |
 * | `strata_shed_level` | gauge: the step of the ladder, 0 for none | |
 * | `strata_shed_percent` | gauge | `class` |
 * | `strata_shed_offered_total` | counter | `class` |
 * | `strata_shed_refused_total` | counter | `class` |
 * | `strata_shed_completed_total` | counter: goodput of `protect` | `class` |
 *
 * **Example** (A handler that gives way)
 *
 * ```ts import.meta.vitest
 * import * as Effect from "effect/Effect"
 * import * as LoadShedding from "@strata/resilience/shedding/LoadShedding"
 * import * as Pressure from "@strata/resilience/shedding/Pressure"
 *
 * const calm = Pressure.make({ name: "calm", read: Effect.succeed(0.1) })
 * const program = Effect.gen(function*() {
 *   const shedding = yield* LoadShedding.LoadShedding
 *   return yield* shedding.protect(Effect.succeed("done"), { priority: "P1", tenant: "acme" })
 * })
 * await Effect.runPromise(Effect.provide(program, LoadShedding.layer({ sensors: [calm] }))) // => "done"
 * ```
 *
 * Sources: "Addressing Cascading Failures" and "Handling Overload" in Site Reliability Engineering (O'Reilly 2016);
 * "Overload Control for Scaling WeChat Microservices" (DAGOR, SoCC 2018) for classes and for shedding whole flows.
 *
 * @since 0.1.0
 */
import { Clock } from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { Random } from "effect/Random"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import type * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import * as Jitter from "../internal/jitter.ts"
import * as LoadWatch from "../internal/loadWatch.ts"
import * as Shedder from "../internal/shedder.ts"
import * as ShedMetrics from "../internal/shedMetrics.ts"
import * as Priority from "../scheduling/Priority.ts"
import * as Stackless from "../Stackless.ts"
import * as Pressure from "./Pressure.ts"
import * as ShedLadder from "./ShedLadder.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * Who asks, and for what.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request {
  /** Default: `Priority.Current` of the fiber. */
  readonly priority?: Priority.Priority | undefined
  /** Those without one are one tenant. */
  readonly tenant?: string | undefined
  /** What belongs together: a correlation id, or that of a saga. */
  readonly flow?: string | undefined
  /** That `decide` let it in: `protect` does not ask again. */
  readonly isDecided?: boolean | undefined
}

/**
 * What is shed, and why.
 *
 * @category models
 * @since 0.1.0
 */
export interface State {
  /** 1 is saturation. */
  readonly load: number
  /** The step of the ladder, 0 for none. */
  readonly level: number
  /** The percentage of each class that is refused. */
  readonly shares: ShedLadder.Shares
  readonly sensors: ReadonlyMap<string, Pressure.Reading>
  readonly ladder: ShedLadder.ShedLadder
}

/**
 * How to shed. Everything has a default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<R = never> {
  readonly sensors: ReadonlyArray<Pressure.Sensor<R>>
  /** Default: `ShedLadder.standard`. */
  readonly ladder?: ShedLadder.ShedLadder | undefined
  /** Measures only when false. Default: true. */
  readonly enabled?: boolean | undefined
  /** How often the sensors are read. Default: 500 milliseconds. */
  readonly interval?: Duration.Input | undefined
  /** Default: `Pressure.smoothing`. */
  readonly smoothing?: Pressure.Smoothing | undefined
  /** When those who were refused should come back, from half to one and a half of it. Default: 5 seconds. */
  readonly retryAfter?: Duration.Input | undefined
  /**
   * So many at a time are let in by `protect` whatever the load: who has next to nothing to do is not what makes it. Default: 2.
   */
  readonly floor?: number | undefined
}

/**
 * What the environment may say: see `config`. A ladder that would do harm is refused.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settings {
  readonly enabled: boolean
  readonly ladder: ShedLadder.ShedLadder
  readonly retryAfter: Duration.Duration
  readonly floor: number
}

const defaultRetryAfter = Duration.seconds(5)
const defaultFloor = 2

// --------------------------------------------------------------------------------------------------------- errors

/**
 * The work was refused before it began, because there is too much of it. It may be tried again after `retryAfter`.
 *
 * @category errors
 * @since 0.1.0
 */
export class Shed extends Schema.TaggedError<Shed>("@strata/resilience/LoadShedding/Shed")("Shed", {
  priority: Priority.Priority,
  level: Schema.Int,
  load: Schema.Finite,
  retryAfter: Schema.Duration
}) {
  override get message(): string {
    return `Overloaded (load ${this.load.toFixed(2)}, level ${this.level}): this ${this.priority} request was not ` +
      `begun. Try again in ${Duration.format(this.retryAfter)}`
  }
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * Lets work in, or refuses it.
 *
 * @category services
 * @since 0.1.0
 */
export class LoadShedding extends Context.Service<LoadShedding, {
  /** Succeeds when the work may go on. */
  readonly admit: (request: Request) => Effect.Effect<void, Shed>
  /** What `protect` would refuse it for now: for an edge where a refusal has to cost next to nothing, outside of any fiber. */
  readonly decide: (request: Request & { readonly priority: Priority.Priority }) => Shed | undefined
  /** Runs an effect if it may, and counts it when it succeeds. */
  readonly protect: <A, E, R>(effect: Effect.Effect<A, E, R>, request: Request) => Effect.Effect<A, E | Shed, R>
  readonly state: Effect.Effect<State>
  /** From now on, the last 64 for who is slow. */
  readonly changes: Stream.Stream<ShedLadder.LevelChange>
  /** Goes by another ladder from now on. */
  readonly adopt: (ladder: ShedLadder.ShedLadder) => Effect.Effect<void>
}>()("@strata/resilience/shedding/LoadShedding") {}

/**
 * Sheds by the sensors given.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <R = never>(options: Options<R>): Layer.Layer<LoadShedding, never, R> =>
  Layer.effect(LoadShedding, make(options))

/**
 * What the environment says.
 *
 * | variable | |
 * | --- | --- |
 * | `STRATA_SHED` | `false` only measures. Default: true |
 * | `STRATA_SHED_LADDER` | The steps: load=P1/P2/P3 in percent. Default: `0.80=25/25/25 0.85=25/50/50 0.90=25/50/75` |
 * | `STRATA_SHED_MARGIN` | How far below its threshold the load must be for a step to be left. Default: 0.05 |
 * | `STRATA_SHED_HOLD` | For how long. Default: 30 seconds |
 * | `STRATA_SHED_RAMP` | How many points a minute a share goes down. Default: 10 |
 * | `STRATA_SHED_RETRY_AFTER` | When those who were refused should come back. Default: 5 seconds |
 * | `STRATA_SHED_FLOOR` | How many at a time are let in whatever the load. Default: 2 |
 *
 * @category config
 * @since 0.1.0
 */
export const config: Config.Config<Settings> = Config.all({
  enabled: Config.Boolean("STRATA_SHED").pipe(Config.withDefault(true)),
  steps: Config.NonEmptyString("STRATA_SHED_LADDER").pipe(
    Config.withDefault(ShedLadder.format(ShedLadder.standard))
  ),
  margin: Config.Finite("STRATA_SHED_MARGIN").pipe(Config.withDefault(ShedLadder.standard.margin)),
  hold: Config.Duration("STRATA_SHED_HOLD").pipe(Config.withDefault(ShedLadder.standard.hold)),
  ramp: Config.Finite("STRATA_SHED_RAMP").pipe(Config.withDefault(ShedLadder.standard.ramp)),
  retryAfter: Config.Duration("STRATA_SHED_RETRY_AFTER").pipe(Config.withDefault(defaultRetryAfter)),
  floor: Config.schema(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)), "STRATA_SHED_FLOOR").pipe(
    Config.withDefault(defaultFloor)
  )
}).pipe(
  Config.mapEffect(({ enabled, floor, hold, margin, ramp, retryAfter, steps }) =>
    Effect.fromResult(ShedLadder.parse(steps, { margin, hold, ramp })).pipe(
      Effect.map((ladder) => ({ enabled, ladder, retryAfter, floor })),
      Effect.mapError((error) =>
        new Config.ConfigError(
          new Schema.SchemaError(
            new SchemaIssue.Pointer(["STRATA_SHED_LADDER"], new SchemaIssue.InvalidValue({ message: error.message }))
          )
        )
      )
    )
  )
)

/**
 * Sheds by the sensors given, as the environment says.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = <R = never>(
  sensors: ReadonlyArray<Pressure.Sensor<R>>
): Layer.Layer<LoadShedding, Config.ConfigError, R> =>
  Layer.unwrap(Effect.map(config, (settings) => layer({ sensors, ...settings })))

// ------------------------------------------------------------------------------------------------- implementation

const make = Effect.fnUntraced(function*<R>(options: Options<R>) {
  const retryAfter = options.retryAfter === undefined
    ? defaultRetryAfter
    : Duration.fromInputUnsafe(options.retryAfter)
  const { enabled = true, floor = defaultFloor, sensors } = options
  let inside = 0
  const shedder = Shedder.make()
  const watch = yield* LoadWatch.make({
    sensors,
    ladder: options.ladder ?? ShedLadder.standard,
    interval: options.interval ?? "500 millis",
    smoothing: options.smoothing ?? Pressure.smoothing,
    shed: (shares, elapsed) => shedder.balance(enabled ? shares : ShedLadder.nothing, elapsed)
  })
  const metrics = yield* ShedMetrics.make(sensors.map(({ name }) => name), watch)

  const context = yield* Effect.context<never>()

  const judge = (context: Context.Context<never>, request: Request, priority: Priority.Priority): Shed | undefined => {
    metrics.offered[priority].updateUnsafe(1, context)
    if (!shedder.sheds(priority, request.tenant, request.flow)) return undefined
    metrics.shed[priority].updateUnsafe(1, context)
    const [{ value: load }, { level }] = [watch.load(), watch.stand()]
    const pause = Jitter.around(retryAfter, Context.get(context, Random))
    return Stackless.make(() => new Shed({ priority, level, load, retryAfter: pause }))
  }

  const isIdle = (context: Context.Context<never>, priority: Priority.Priority): boolean => {
    if (inside >= floor) return false
    metrics.offered[priority].updateUnsafe(1, context)
    return true
  }

  const ask = (fiber: Fiber.Fiber<unknown, unknown>, request: Request, priority: Priority.Priority) => {
    const refused = judge(fiber.context, request, priority)
    if (refused === undefined) return undefined
    annotate(fiber, { class: priority, tenant: request.tenant, level: refused.level, load: refused.load })
    return Effect.fail(refused)
  }

  return LoadShedding.of({
    admit: (request) =>
      Effect.withFiber((fiber) =>
        ask(fiber, request, request.priority ?? fiber.getRef(Priority.Current)) ?? Effect.void
      ),
    decide: (request) => isIdle(context, request.priority) ? undefined : judge(context, request, request.priority),
    protect: <A, E, R>(effect: Effect.Effect<A, E, R>, request: Request) =>
      Effect.withFiber<A, E | Shed, R>((fiber) => {
        const priority = request.priority ?? fiber.getRef(Priority.Current)
        let isInside = false
        // It goes in inside what lets it out: a fiber may be interrupted between any two steps.
        const enter = Effect.suspend((): Effect.Effect<A, E | Shed, R> => {
          const isLetIn = request.isDecided === true || isIdle(fiber.context, priority)
          const refused = isLetIn ? undefined : ask(fiber, request, priority)
          if (refused !== undefined) return refused
          isInside = true
          inside++
          return effect
        })
        return Effect.onExitPrimitive(enter, (exit) => {
          if (!isInside) return undefined
          inside--
          if (exit._tag === "Success") metrics.completed[priority].updateUnsafe(1, fiber.context)
          return undefined
        })
      }),
    state: Effect.sync(() => {
      const [{ readings: sensors, value: load }, { level, shares }] = [watch.load(), watch.stand()]
      return { load, level, shares, sensors, ladder: watch.ladder() }
    }),
    changes: watch.changes,
    adopt: watch.adopt
  })
})

/** The span of a request that is refused says so. */
const annotate = (fiber: Fiber.Fiber<unknown, unknown>, attributes: Record<string, unknown>) => {
  const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
  if (span?._tag === "Span") span.event("shed", fiber.getRef(Clock).currentTimeNanosUnsafe(), attributes)
}
