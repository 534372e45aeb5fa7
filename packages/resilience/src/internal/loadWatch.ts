/** Watches the load of this process, and stands on the step of the ladder that it asks for. */
import { Clock } from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Pressure from "../shedding/Pressure.ts"
import * as ShedLadder from "../shedding/ShedLadder.ts"

export interface WatchOptions<R> {
  readonly sensors: ReadonlyArray<Pressure.Sensor<R>>
  readonly ladder: ShedLadder.ShedLadder
  readonly interval: Duration.Input
  readonly smoothing: Pressure.Smoothing
  /** What is shed from now on, and how many milliseconds were watched since the last time. */
  readonly shed: (shares: ShedLadder.Shares, elapsed: number) => void
}

/** Watches until the scope closes. */
export const make = Effect.fnUntraced(function*<R>(options: WatchOptions<R>) {
  const { interval, shed, smoothing } = options
  const clock = yield* Clock
  const changes = yield* PubSub.sliding<ShedLadder.LevelChange>(64)
  let ladder = options.ladder
  let load = Pressure.idle
  let stand = ShedLadder.calm
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

  const move = (next: ShedLadder.State, cause: string) => {
    const { level: from, watched } = stand
    stand = next
    shed(next.shares, next.watched - watched)
    if (next.level === from) return Effect.void
    const change: ShedLadder.LevelChange = { from, to: next.level, load: load.value, cause }
    PubSub.publishUnsafe(changes, change)
    return Effect.logInfo("The level of load shedding changes", change)
  }

  const see = (read: ReadonlyMap<string, number | undefined>) => {
    const before = Pressure.blind(load)
    load = Pressure.observe(load, read, now(), smoothing)
    const blind = Pressure.blind(load)
    // Who does not see goes as if there were enough load for the first step.
    const [first] = ladder.steps
    const careful = blind.length > 0 && load.value < first.load
    const next = ShedLadder.observe(ladder, stand, { load: careful ? first.load : load.value, now: now() })
    const rises = careful ? blind.join(", ") : Pressure.dominant(load) ?? "calm"
    return Effect.andThen(tell(before, blind), move(next, next.level > stand.level ? rises : "calm"))
  }

  const sensors = yield* Effect.forEach(
    options.sensors,
    ({ name, open }) => Effect.map(open, (read) => Effect.map(readSafely(read), (value) => [name, value] as const))
  )
  yield* Effect.all(sensors, { concurrency: "unbounded" }).pipe(
    Effect.flatMap((read) => see(new Map(read))),
    Effect.repeat(Schedule.spaced(interval)),
    Effect.withTracerEnabled(false),
    Effect.forkScoped({ startImmediately: true })
  )

  return {
    load: () => load,
    stand: () => stand,
    ladder: () => ladder,
    changes: Stream.fromPubSub(changes),
    adopt: (next: ShedLadder.ShedLadder) =>
      Effect.suspend(() => {
        ladder = next
        // Its steps are others, so none of them has been calm.
        return move(ShedLadder.observe(next, { ...stand, calmSince: [] }, { load: load.value, now: now() }), "ladder")
      })
  }
})

/** A sensor that breaks, or does not answer, gives no number. */
const readSafely = (read: Effect.Effect<number | undefined>) =>
  read.pipe(
    Effect.timeoutOption("1 second"),
    Effect.map(Option.getOrUndefined),
    Effect.catchCause((cause) => Effect.as(Effect.logDebug("A sensor of pressure could not be read", cause), undefined))
  )

/** Says once that a sensor is blind, and once that it is no longer. */
const tell = (before: ReadonlyArray<string>, now: ReadonlyArray<string>) =>
  Effect.forEach(new Set([...before, ...now]), (sensor) => {
    if (before.includes(sensor) === now.includes(sensor)) return Effect.void
    return now.includes(sensor)
      ? Effect.logWarning("A sensor of pressure gives no number: shedding as on the first step until it does", {
        sensor
      })
      : Effect.logInfo("A sensor of pressure gives numbers again", { sensor })
  }, { discard: true })
