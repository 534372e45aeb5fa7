/**
 * Turns at something of which there is a limited number: first come, first served, and nobody waits longer than a limit.
 *
 * A turn belongs to whoever asked from the moment it is granted, also when its fiber is interrupted before it goes on:
 * so `end` is called on every exit of what begins with `begin`, however far that got.
 */
import { Clock } from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"

/** How many turns there are, are taken, and are waited for. */
export interface TurnsState {
  readonly max: number
  inUse: number
  waiting: number
}

export interface Turns<E> {
  /** Runs an effect in its turn. */
  readonly use: <A, E2, R>(effect: Effect.Effect<A, E2, R>) => Effect.Effect<A, E | E2, R>
  /** Has a turn until the scope closes. */
  readonly take: Effect.Effect<void, E, Scope.Scope>
  /** How long the one who waits the longest has waited so far. */
  readonly longestWait: Effect.Effect<Duration.Duration>
}

class Turn<E> {
  granted = false
  deadline = 0n
  go: (exit: Exit.Exit<void, E>) => void = () => {}
}

export const make = Effect.fnUntraced(function*<E>(options: {
  readonly state: TurnsState
  readonly timeout: Duration.Duration
  readonly timedOut: () => E
}): Effect.fn.Return<Turns<E>, never, Scope.Scope> {
  const { state, timedOut, timeout } = options
  const clock = yield* Clock
  const limit = Duration.toNanosUnsafe(timeout)
  const fork = yield* FiberSet.makeRuntime()
  // In the order in which they came, which is that of their deadlines.
  const waiting = new Set<Turn<E>>()
  let watched = false

  const granted = (turn: Turn<E>): boolean => {
    if (state.inUse >= state.max) return false
    state.inUse++
    return turn.granted = true
  }

  // Lazy: a turn is taken when whatever gives it back is in place, and not before. A fiber may yield between any two steps, so
  // whoever is about to wait looks once more: a turn that came free meanwhile would wake nobody.
  const begin = (turn: Turn<E>): Effect.Effect<void, E> =>
    Effect.suspend(() => granted(turn) ? Effect.void : wait(turn))

  const wait = (turn: Turn<E>): Effect.Effect<void, E> =>
    Effect.callback((go) => {
      if (granted(turn)) return go(Effect.void)
      turn.deadline = clock.monotonicTimeNanosUnsafe() + limit
      turn.go = go
      waiting.add(turn)
      state.waiting++
      if (!watched) {
        watched = true
        fork(watch)
      }
    })

  const leave = (turn: Turn<E>) => {
    if (waiting.delete(turn)) state.waiting--
  }

  // Whoever is let go runs at once, and may end its turn at once: then the next one is let go by the same loop.
  const next: Array<Turn<E>> = []
  const end = (turn: Turn<E>): void => {
    if (!turn.granted) return leave(turn)
    const [first] = waiting
    if (first === undefined) {
      state.inUse--
      return
    }
    leave(first)
    first.granted = true
    if (next.push(first) > 1) return
    for (const granted of next) granted.go(Exit.void)
    next.length = 0
  }

  // One timer for all who wait, and none when nobody does.
  const watch: Effect.Effect<void> = Effect.suspend(() => {
    const now = clock.monotonicTimeNanosUnsafe()
    for (const turn of waiting) {
      if (turn.deadline > now) return Effect.andThen(Effect.sleep(Duration.nanos(turn.deadline - now)), watch)
      leave(turn)
      turn.go(Exit.fail(timedOut()))
    }
    watched = false
    return Effect.void
  })

  return {
    use: (effect) =>
      Effect.suspend(() => {
        const turn = new Turn<E>()
        return Effect.onExitPrimitive(Effect.andThen(begin(turn), effect), () => {
          end(turn)
          return undefined
        })
      }),
    take: Effect.suspend(() => {
      const turn = new Turn<E>()
      return Effect.andThen(Effect.addFinalizer(() => Effect.sync(() => end(turn))), begin(turn))
    }),
    longestWait: Effect.sync(() => {
      const [first] = waiting
      return first === undefined
        ? Duration.zero
        : Duration.nanos(limit - first.deadline + clock.monotonicTimeNanosUnsafe())
    })
  }
})
