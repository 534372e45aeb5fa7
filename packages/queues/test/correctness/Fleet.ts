/**
 * Processes that send and work on one database, what they write down, and what is done to them.
 */
import * as ChildProgram from "@strata/testing/ChildProgram"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Failpoint } from "./Failpoint.ts"
import { all, type Event, Line } from "./History.ts"

const decode = Schema.decodeOption(Line)
const show = (given: object): string => JSON.stringify(given)

/** Processes for the time of the scope. */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const events: Array<Event> = []
  const workers = new Map<string, ChildProgram.ChildProgram>()
  const lives: Array<Fiber.Fiber<void>> = []
  const state = { isOpen: true }

  /** Starts a program; what it writes down is read until it ends. */
  const start = Effect.fnUntraced(function*(program: "worker" | "sender", given: object) {
    const child = yield* ChildProgram.start(new URL(`../programs/${program}.ts`, import.meta.url), {
      args: [show(given)],
      env: { DATABASE_URL: url }
    })
    const reading = yield* child.lines.pipe(
      // A log may be between them, and what was killed may have left a part of one.
      Stream.runForEach((line) => Effect.sync(() => events.push(...Option.toArray(decode(line))))),
      Effect.forkScoped
    )
    return { child, ended: Fiber.join(reading) }
  })

  /** Waits until it is so. */
  const untilSo = <E, R>(what: string, look: Effect.Effect<boolean, E, R>) =>
    look.pipe(
      Effect.repeat({ until: (isSo) => isSo, schedule: Schedule.spaced("20 millis") }),
      Effect.timeoutOrElse({
        duration: "60 seconds",
        orElse: () => Effect.die(new Error(`In vain it was waited until ${what}`))
      })
    )

  /** Waits for what the processes write down. */
  const until = (what: string, holds: (events: ReadonlyArray<Event>) => boolean) =>
    untilSo(what, Effect.sync(() => holds(events)))

  /** A worker that is started again whenever it ends, with the next failpoint when it was struck by the last one. */
  const live = Effect.fnUntraced(function*(name: string, failpoints: ReadonlyArray<Failpoint>) {
    const rest = [...failpoints]
    for (let life = 0; state.isOpen; life++) {
      const own = `${name}${life}`
      const { child, ended } = yield* start("worker", { name: own, failpoint: rest[0] ?? null })
      workers.set(name, child)
      if (!state.isOpen) yield* child.end
      yield* ended
      if (all(events, "Struck").some(({ worker }) => worker === own)) rest.shift()
    }
  })

  return {
    events,
    until,
    untilSo,

    /** Has somebody work, for ever. */
    work: (name: string, ...failpoints: ReadonlyArray<Failpoint>) =>
      Effect.map(Effect.forkScoped(Effect.orDie(live(name, failpoints))), (fiber) => {
        lives.push(fiber)
      }),

    /** Has somebody send, until it is told to end. */
    send: (name: string, first: number, failpoint: Failpoint | null = null) =>
      Effect.map(start("sender", { name, first, failpoint }), ({ child, ended }) => ({
        ended,
        end: Effect.andThen(child.end, ended)
      })),

    /** Until so many more effects are committed. */
    progress: (count: number) =>
      Effect.suspend(() => {
        const enough = all(events, "Did").length + count
        return until(`${count} more effects`, (events) => all(events, "Did").length >= enough)
      }),

    /** Ends a worker on the spot. It may just have ended itself. */
    kill: (name: string) =>
      Effect.suspend(() => {
        const child = workers.get(name)
        return child === undefined ? Effect.void : Effect.asVoid(Effect.exit(child.kill9))
      }),

    /** A worker that stands still goes on. */
    resume: (name: string) => Effect.suspend(() => workers.get(name)!.resume),

    /** Has all workers end in order, and waits for it. */
    stop: Effect.suspend(() => {
      state.isOpen = false
      return Effect.andThen(
        Effect.forEach(workers.values(), (child) => child.end, { discard: true }),
        Effect.forEach(lives, Fiber.join, { discard: true })
      )
    })
  }
})
