/**
 * The systems whose calls are compared, and a call of each in each of its parts.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as CockatielParts from "./CockatielParts.ts"
import * as EffectParts from "./EffectParts.ts"
import * as Loop from "./Loop.ts"
import * as OpossumParts from "./OpossumParts.ts"
import * as Parts from "./Parts.ts"
import * as StrataParts from "./StrataParts.ts"

/**
 * Their names.
 *
 * @category constants
 * @since 0.1.0
 */
export const all = ["Strata", "effect", "Strata, a fiber for each call", "a promise", "cockatiel", "opossum"] as const

/**
 * One of them.
 *
 * @category models
 * @since 0.1.0
 */
export type CallSystem = (typeof all)[number]

/**
 * What is called, by part. What a system does not have is not there.
 *
 * @category models
 * @since 0.1.0
 */
export type Calls = Partial<Record<Parts.Part, Loop.Call>>

/**
 * The calls of a system, for the time of the scope. What is called succeeds at once, and calls `count`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const open = (system: CallSystem, count: () => number): Effect.Effect<Calls, never, Scope.Scope> => {
  const counted = Effect.sync(count)
  const promised = () => Promise.resolve(count())
  switch (system) {
    case "Strata":
      return Effect.map(StrataParts.make(counted), each(Loop.effect))
    case "effect":
      return Effect.map(EffectParts.make(counted), each(Loop.effect))
    case "Strata, a fiber for each call":
      return Effect.map(StrataParts.make(counted), each(Loop.effectFromOutside))
    case "a promise":
      return Effect.succeed({ bare: Loop.promise(promised) })
    case "cockatiel":
      return Effect.sync(() => each(Loop.promise)(CockatielParts.make(promised)))
    case "opossum":
      return Effect.map(OpossumParts.make(promised), each(Loop.promise))
  }
}

const each = <A>(call: (make: A) => Loop.Call) => (parts: Partial<Record<Parts.Part, A>>): Calls => {
  const calls: Calls = {}
  for (const part of Parts.all) {
    const make = parts[part]
    if (make !== undefined) calls[part] = call(make)
  }
  return calls
}
