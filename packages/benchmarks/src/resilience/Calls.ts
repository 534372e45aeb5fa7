/**
 * `call`: what it costs to call something through each part, and through all of them.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { Lane, Work } from "../Suite.ts"
import * as CockatielParts from "./CockatielParts.ts"
import * as EffectParts from "./EffectParts.ts"
import * as Loop from "./Loop.ts"
import * as OpossumParts from "./OpossumParts.ts"
import * as Parts from "./Parts.ts"
import * as StrataParts from "./StrataParts.ts"

/**
 * One caller of a call that succeeds at once.
 *
 * @category works
 * @since 0.1.0
 */
export const work: Work = {
  name: "call",
  lanes: Effect.gen(function*() {
    let calls = 0
    const done = () => calls
    const promised = () => Promise.resolve(++calls)
    const strata = yield* StrataParts.make(Effect.sync(() => ++calls))
    const effect = yield* EffectParts.make(Effect.sync(() => ++calls))
    const cockatiel = CockatielParts.make(promised)
    const opossum = yield* OpossumParts.make(promised)

    return Parts.all.flatMap((part) => {
      const lane = (system: string, call: Loop.Call): Lane =>
        Loop.lane({ system, work: Parts.workOf(part), call, done })
      const peer = (system: string, call: (() => Promise<unknown>) | undefined) =>
        call === undefined ? [] : [lane(system, Loop.promise(call))]
      const ofEffect = effect[part]
      return [
        lane("Strata", Loop.effect(strata[part])),
        ...ofEffect === undefined ? [] : [lane("effect", Loop.effect(ofEffect))],
        lane("Strata, a fiber for each call", Loop.effectFromOutside(strata[part])),
        ...peer(part === "bare" ? "a promise" : "cockatiel", cockatiel[part]),
        ...peer("opossum", opossum[part])
      ]
    })
  })
}
