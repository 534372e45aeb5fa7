import { NodeRuntime } from "@effect/platform-node"
import { Projections } from "@strata/projections"
import { Console, Effect, Layer } from "effect"
import { openShop, Store, Takings, takingsOf } from "./bakery.ts"

Effect.gen(function*() {
  const projections = yield* Projections.Projections
  const { position, stream } = yield* openShop
  yield* projections.waitFor({ position })
  yield* Console.log("takings", yield* takingsOf(stream))
}).pipe(Effect.provide(Projections.layer([Takings]).pipe(Layer.provideMerge(Store))), NodeRuntime.runMain)
