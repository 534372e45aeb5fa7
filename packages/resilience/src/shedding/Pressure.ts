/**
 * How loaded this process is, from what it can measure: one number, where 1 is saturation.
 *
 * **Details**
 *
 * A `Sensor` reads one pressure: 0 idle, 1 saturated, more beyond. The load is the largest of them, smoothed. The
 * sensors of the machine are in `PressureSensors`; what only others know comes through `make`, or through `poolWait`,
 * `queueAge` and `disk`, which name the usual ones. Delay tells more than length: a queue of a thousand that is served
 * in a moment is no pressure, and one of ten that stands is.
 *
 * A sensor that gives no number, NaN or less than nothing keeps its last value for a while. Then it is *blind*: its
 * value is dropped, and whoever sheds by the load has to be careful, and to tell somebody.
 *
 * **Example** (The age of the oldest message against what was promised)
 *
 * ```ts import.meta.vitest
 * import * as Effect from "effect/Effect"
 * import * as Duration from "effect/Duration"
 * import * as Pressure from "@strata/resilience/shedding/Pressure"
 *
 * const sensor = Pressure.queueAge({ oldest: Effect.succeed(Duration.seconds(3)), promised: "4 seconds" })
 * await Effect.runPromise(Effect.scoped(Effect.flatten(sensor.open))) // => 0.75
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/**
 * Something that can be read again and again once it is open. `undefined` says that there is nothing to read now.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sensor<R = never> {
  /** A label of metrics, in lower case. */
  readonly name: string
  readonly open: Effect.Effect<Effect.Effect<number | undefined>, never, R | Scope.Scope>
}

// -------------------------------------------------------------------------------------------------------- sensors

/**
 * A sensor that reads a number somebody else knows, which is `saturated` when there is no more room.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: {
  readonly name: string
  readonly read: Effect.Effect<number | undefined>
  readonly saturated?: number | undefined
}): Sensor => {
  const { name, read, saturated = 1 } = options
  return {
    name,
    open: Effect.succeed(Effect.map(read, (value) => value === undefined ? undefined : value / saturated))
  }
}

const makeDelay = (
  name: string,
  delay: Effect.Effect<Duration.Duration | undefined>,
  saturated: Duration.Input
): Sensor =>
  make({
    name,
    read: Effect.map(delay, (delay) => delay === undefined ? undefined : Duration.toMillis(delay)),
    saturated: Duration.toMillis(Duration.fromInputUnsafe(saturated))
  })

/**
 * How long callers wait for a connection, the longest of them or a high percentile, against how long they may.
 *
 * @category constructors
 * @since 0.1.0
 */
export const poolWait = (options: {
  readonly waited: Effect.Effect<Duration.Duration | undefined>
  /** Default: 100 milliseconds. */
  readonly target?: Duration.Input | undefined
  /** Default: pool_wait. */
  readonly name?: string | undefined
}): Sensor => makeDelay(options.name ?? "pool_wait", options.waited, options.target ?? "100 millis")

/**
 * How old the oldest waiting message is against what was promised.
 *
 * @category constructors
 * @since 0.1.0
 */
export const queueAge = (options: {
  readonly oldest: Effect.Effect<Duration.Duration | undefined>
  readonly promised: Duration.Input
  /** Default: queue_age. */
  readonly name?: string | undefined
}): Sensor => makeDelay(options.name ?? "queue_age", options.oldest, options.promised)

/**
 * How much of a disk, or of what the write-ahead log may take, is used.
 *
 * @category constructors
 * @since 0.1.0
 */
export const disk = (options: {
  readonly used: Effect.Effect<number | undefined>
  readonly size: number
  /** Default: disk. */
  readonly name?: string | undefined
}): Sensor => make({ name: options.name ?? "disk", read: options.used, saturated: options.size })

// ----------------------------------------------------------------------------------------------------------- load

/**
 * What one sensor last said.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reading {
  /** The last value that was one: `undefined` before the first, and of a sensor that is blind. */
  readonly pressure: number | undefined
  /** When it was read, or when the sensor was first asked, in milliseconds of a monotonic clock. */
  readonly at: number
  readonly blind: boolean
}

/**
 * The load, and what it is made from.
 *
 * @category models
 * @since 0.1.0
 */
export interface Load {
  /** The largest pressure, smoothed. */
  readonly value: number
  readonly readings: ReadonlyMap<string, Reading>
  readonly at: number | undefined
}

/**
 * How readings become a load.
 *
 * @category models
 * @since 0.1.0
 */
export interface Smoothing {
  /** The time constant of the moving average. Default: 5 seconds. */
  readonly over: Duration.Duration
  /** How long a sensor that gives no number keeps its last one. Default: 10 seconds. */
  readonly blindAfter: Duration.Duration
}

/**
 * The defaults.
 *
 * @category constants
 * @since 0.1.0
 */
export const smoothing: Smoothing = { over: Duration.seconds(5), blindAfter: Duration.seconds(10) }

/**
 * No load: a process that starts is not overloaded, whatever its first seconds look like.
 *
 * @category constants
 * @since 0.1.0
 */
export const idle: Load = { value: 0, readings: new Map(), at: undefined }

/** One reading counts as twice saturated at most, so a single long pause is not taken for minutes of overload. */
const mostPressure = 2

/** Two readings further apart count as if they were so many milliseconds apart. */
const longestGap = 5000

/**
 * The load after reading all sensors. `now` is a monotonic clock's, in milliseconds.
 *
 * @category transitions
 * @since 0.1.0
 */
export const observe = (
  before: Load,
  read: ReadonlyMap<string, number | undefined>,
  now: number,
  { blindAfter, over }: Smoothing = smoothing
): Load => {
  const patience = Duration.toMillis(blindAfter)
  const readings = new Map<string, Reading>()
  let largest = 0
  for (const [name, pressure] of read) {
    const reading = toReading(pressure, before.readings.get(name), now, patience)
    readings.set(name, reading)
    largest = Math.max(largest, Math.min(reading.pressure ?? 0, mostPressure))
  }
  const elapsed = before.at === undefined ? 0 : Math.min(Math.max(0, now - before.at), longestGap)
  const constant = Duration.toMillis(over)
  const weight = constant === 0 ? 1 : 1 - Math.exp(-elapsed / constant)
  return { value: before.value + weight * (largest - before.value), readings, at: now }
}

const toReading = (
  pressure: number | undefined,
  before: Reading | undefined,
  now: number,
  patience: number
): Reading => {
  if (pressure !== undefined && pressure >= 0 && pressure < Infinity) return { pressure, at: now, blind: false }
  if (before === undefined) return { pressure: undefined, at: now, blind: false }
  return now - before.at >= patience ? { pressure: undefined, at: before.at, blind: true } : before
}

/**
 * The names of the sensors that are blind.
 *
 * @category getters
 * @since 0.1.0
 */
export const blind = ({ readings }: Load): ReadonlyArray<string> =>
  Array.from(readings).filter(([, reading]) => reading.blind).map(([name]) => name)

/**
 * The name of the sensor that makes the load what it is.
 *
 * @category getters
 * @since 0.1.0
 */
export const dominant = ({ readings }: Load): string | undefined => {
  let largest: { readonly name: string; readonly pressure: number } | undefined
  for (const [name, { pressure = 0 }] of readings) {
    if (pressure > (largest?.pressure ?? 0)) largest = { name, pressure }
  }
  return largest?.name
}
