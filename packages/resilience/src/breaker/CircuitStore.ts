/**
 * Where circuits are kept: in the process, or shared between processes.
 *
 * **Details**
 *
 * A store applies the events of a breaker to its circuits, one after the other for each key, with its own clock, and tells
 * what came of it. The rules are the breaker's: see `Circuit.Rules`. effect's `CircuitBreakerStore` keeps the rules in the store
 * and has no durations, leases or commands, so this is a seam of its own.
 *
 * @since 0.1.0
 */
import { Clock } from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberMap from "effect/FiberMap"
import * as Layer from "effect/Layer"
import type { CircuitBreakerError } from "effect/persistence/CircuitBreaker"
import type * as Scope from "effect/Scope"
import * as Circuit from "./Circuit.ts"
import * as CircuitState from "./CircuitState.ts"

// -------------------------------------------------------------------------------------------------------- service

/**
 * A circuit, and the time of its store.
 *
 * @category models
 * @since 0.1.0
 */
export interface CircuitNow {
  readonly circuit: CircuitState.Circuit
  readonly now: number
}

/**
 * The circuits of one breaker.
 *
 * @category models
 * @since 0.1.0
 */
export interface Circuits {
  /** A call asks to run. A store that knows at once may decide when it is called, and give an `Exit`. */
  readonly admit: (key: string) => Effect.Effect<CircuitState.Decision, CircuitBreakerError>
  /** A call ended. Neither fails nor waits for anything outside the process. Likewise, a store may count it when it is called. */
  readonly end: (key: string, ended: CircuitState.Ended) => Effect.Effect<"Counted" | "Ignored" | "Late">
  /** Somebody decides. */
  readonly command: (key: string, command: CircuitState.Command) => Effect.Effect<void, CircuitBreakerError>
  /** A circuit, with all that time has done to it. */
  readonly read: (key: string) => Effect.Effect<CircuitNow, CircuitBreakerError>
}

/**
 * The rules of a breaker, and where it wants to be told what happens.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly rules: Circuit.Rules
  readonly tell: (key: string, events: ReadonlyArray<CircuitState.Event>) => Effect.Effect<void>
}

/**
 * A store of circuits.
 *
 * @category services
 * @since 0.1.0
 */
export class CircuitStore extends Context.Service<CircuitStore, {
  /** The circuits of a breaker, until the scope closes. Breakers that use one key share its circuit. */
  readonly open: (options: Options) => Effect.Effect<Circuits, never, Scope.Scope>
}>()("@strata/resilience/breaker/CircuitStore") {}

// --------------------------------------------------------------------------------------------------------- memory

interface Entry {
  circuit: CircuitState.Circuit
  usedAt: number
  /** What is not in the circuit yet. */
  successes: Circuit.Successes | undefined
  /** The answer to a call while all calls are let through. */
  admitted: Exit.Exit<Admitted> | undefined
}

type Admitted = CircuitState.Decision & { readonly _tag: "Admitted" }

/** What is in it with all that was gathered. */
const circuitOf = (entry: Entry): CircuitState.Circuit => {
  const { circuit, successes } = entry
  if (successes === undefined) return circuit
  entry.successes = undefined
  entry.circuit = Circuit.addSuccesses(circuit, successes)
  return entry.circuit
}

/** Gathers a success, if that is all it is. */
const hasGathered = (
  entry: Entry,
  rules: Circuit.Rules,
  at: number,
  { duration, generation, outcome }: CircuitState.Ended
): boolean => {
  if (outcome !== "Success") return false
  let { successes } = entry
  if (successes === undefined || at >= successes.until || successes.rules !== rules) {
    successes = Circuit.gather(rules, circuitOf(entry), at)
    if (successes === undefined) return false
    entry.successes = successes
  }
  if (generation !== successes.generation || duration > successes.slowAfter) return false
  successes.calls++
  successes.duration += duration
  return true
}

const counted = Exit.succeed("Counted" as const)

/**
 * Keeps circuits in the process, by its monotonic clock.
 *
 * **Details**
 *
 * - `capacity` (10 000): how many circuits are kept. A new one then takes the place of the oldest that is closed, or else open;
 *   those that were told what to do stay.
 * - `idleTimeToLive` (1 hour): a circuit unused for so long is forgotten, unless it is open or was told what to do.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options: {
  readonly capacity?: number | undefined
  readonly idleTimeToLive?: Duration.Input | undefined
} = {}): Layer.Layer<CircuitStore> =>
  Layer.effect(
    CircuitStore,
    Effect.gen(function*() {
      const clock = yield* Clock
      const origin = clock.monotonicTimeNanosUnsafe()
      const now = () => Number(clock.monotonicTimeNanosUnsafe() - origin) / 1e6
      const entries = makeEntries(
        options.capacity ?? 10_000,
        Duration.toMillis(Duration.fromInputUnsafe(options.idleTimeToLive ?? "1 hour"))
      )
      return CircuitStore.of({ open: (options) => openMemory(entries, now, options) })
    })
  )

const makeEntries = (capacity: number, idle: number) => {
  const entries = new Map<string, Entry>()
  let sweptAt = 0
  // A circuit that takes the place of a forgotten one begins with a generation the other never had.
  let generation = CircuitState.initial.generation

  const sweep = (at: number) => {
    if (at - sweptAt < idle) return
    sweptAt = at
    for (const [key, { circuit: { phase }, usedAt }] of entries) {
      const forgettable = phase._tag === "Closed" || phase._tag === "Open" && at - phase.until >= idle
      if (forgettable && at - usedAt >= idle) entries.delete(key)
    }
  }

  const makeRoom = (): void => {
    if (entries.size < capacity) return
    for (const phase of ["Closed", "Open"]) {
      for (const [key, { circuit }] of entries) {
        if (circuit.phase._tag !== phase) continue
        entries.delete(key)
        return
      }
    }
  }

  const entryOf = (key: string, at: number): Entry => {
    const found = entries.get(key)
    if (found !== undefined) {
      found.usedAt = at
      return found
    }
    sweep(at)
    makeRoom()
    const entry: Entry = {
      circuit: { ...CircuitState.initial, generation },
      usedAt: at,
      successes: undefined,
      admitted: undefined
    }
    generation += 2 ** 20
    entries.set(key, entry)
    return entry
  }
  return { find: (key: string) => entries.get(key), entryOf }
}

const openMemory = Effect.fnUntraced(function*(
  { entryOf, find }: ReturnType<typeof makeEntries>,
  now: () => number,
  { rules, tell }: Options
) {
  // One timer for each circuit with probes: it settles what nobody comes to look at.
  const fork = yield* FiberMap.makeRuntime<never, string>()

  const apply = <A>(
    key: string,
    change: (circuit: CircuitState.Circuit, at: number) => CircuitState.Step<A>
  ): Effect.Effect<A> => {
    const at = now()
    const entry = entryOf(key, at)
    const before = circuitOf(entry)
    const step = change(before, at)
    entry.circuit = step.circuit
    if (step.circuit.generation !== before.generation) entry.admitted = undefined
    return step.events.length === 0
      ? Exit.succeed(step.decision)
      : Effect.as(tell(key, step.events), step.decision)
  }

  const settle = (key: string) => Effect.suspend(() => apply(key, (circuit, at) => Circuit.settle(rules, circuit, at)))

  const watch = (key: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      const at = now()
      const next = Circuit.nextDeadline(entryOf(key, at).circuit)
      return next === undefined
        ? Effect.void
        : Effect.sleep(Duration.millis(Math.max(0, Math.ceil(next - at)))).pipe(
          Effect.andThen(settle(key)),
          Effect.andThen(watch(key))
        )
    })

  const admit = (key: string, at: number, decision: Admitted): void => {
    if (decision.probe === undefined) entryOf(key, at).admitted = Exit.succeed(decision)
    else fork(key, watch(key))
  }

  const circuits: Circuits = {
    admit: (key) => {
      const { admitted } = find(key) ?? {}
      return admitted ?? apply(key, (circuit, at) => {
        const step = Circuit.admit(rules, circuit, at)
        if (step.decision._tag === "Admitted") admit(key, at, step.decision)
        return step
      })
    },
    end: (key, ended) => {
      const at = now()
      return hasGathered(entryOf(key, at), rules, at, ended)
        ? counted
        : apply(key, (circuit, at) => Circuit.end(rules, circuit, at, ended))
    },
    command: (key, command) =>
      Effect.suspend(() => apply(key, (circuit, at) => Circuit.command(rules, circuit, at, command))),
    read: (key) =>
      Effect.suspend(() =>
        apply(key, (circuit, now) => {
          const step = Circuit.settle(rules, circuit, now)
          return { ...step, decision: { circuit: step.circuit, now } }
        })
      )
  }
  return circuits
})
