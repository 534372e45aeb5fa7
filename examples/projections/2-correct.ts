import { NodeRuntime } from "@effect/platform-node"
import { EventStore } from "@strata/event-store"
import { Projections } from "@strata/projections"
import { Console, Effect, Layer } from "effect"
import { events, openShop, Sold, Store, Takings, takingsOf } from "./bakery.ts"

Effect.gen(function*() {
  const projections = yield* Projections.Projections
  const store = yield* EventStore.EventStore
  const { facts: [, spelt, rye], position, stream } = yield* openShop
  yield* projections.waitFor({ position })
  yield* Console.log("sold     ", yield* takingsOf(stream))

  const typo = { revises: rye!.eventId, reason: "a zero too many", actor: "ada" }
  const corrected = yield* store.revise(events.encodeCorrection(Sold.make({ loaf: "rye", cents: 400 }), typo))
  yield* projections.waitFor({ position: corrected.position })
  yield* Console.log("corrected", yield* takingsOf(stream))

  const gone = yield* store.revise({
    _tag: "Retraction",
    revises: spelt!.eventId,
    reason: "brought back",
    actor: "ada"
  })
  yield* projections.waitFor({ position: gone.position })
  yield* Console.log("retracted", yield* takingsOf(stream))
}).pipe(Effect.provide(Projections.layer([Takings]).pipe(Layer.provideMerge(Store))), NodeRuntime.runMain)
