/**
 * Where, and when, a process ends itself or stands still.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { now, Place, type Record, Signal } from "./History.ts"

/** At the `pass`-th time that the process comes by. */
export const Failpoint = Schema.Struct({
  place: Place,
  pass: Schema.Int,
  signal: Signal
})
export type Failpoint = typeof Failpoint.Type

export const killed = (place: Place, pass: number): Failpoint => ({ place, pass, signal: "SIGKILL" })
export const stopped = (place: Place, pass: number): Failpoint => ({ place, pass, signal: "SIGSTOP" })

/** The way of a process along its failpoint, if it has one. */
export interface Way {
  readonly failpoint: Failpoint | null
  /** Comes by a place with some messages in the hands. Who is struck there has told of it. */
  readonly passing: (place: Place, ids: ReadonlyArray<number>) => Effect.Effect<void>
}

/** Nothing happens to the process. */
export const safe: Way = { failpoint: null, passing: () => Effect.void }

export const make = (failpoint: Failpoint | null, worker: string, record: Record): Way => {
  let passes = 0
  return {
    failpoint,
    passing: (place, ids) =>
      Effect.sync(() => {
        if (failpoint?.place !== place || ++passes !== failpoint.pass) return
        const { signal } = failpoint
        record({ _tag: "Struck", at: now(), worker, place, signal, ids })
        process.kill(process.pid, signal)
      })
  }
}
