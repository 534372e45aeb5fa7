import { NodeRuntime } from "@effect/platform-node"
import { EventStore } from "@strata/event-store"
import { Projections, Replay } from "@strata/projections"
import { Console, Effect, Layer } from "effect"
import { events, openShop, Sold, Store, Takings, takingsOf } from "./bakery.ts"

Effect.gen(function*() {
  const projections = yield* Projections.Projections
  const store = yield* EventStore.EventStore
  const { facts: [, , rye], position: monday, stream } = yield* openShop
  const typo = { revises: rye!.eventId, reason: "a zero too many", actor: "ada" }
  const { position } = yield* store.revise(events.encodeCorrection(Sold.make({ loaf: "rye", cents: 400 }), typo))
  yield* projections.waitFor({ position })

  const into = `takings_as_known_at_${monday}`
  yield* Replay.run(Takings, { into, knownAt: { position: monday } })
  yield* Console.log("as known then", yield* Replay.within(into)(takingsOf(stream)))
  yield* Console.log("as known now ", yield* takingsOf(stream))
  yield* Replay.drop(into)
}).pipe(Effect.provide(Projections.layer([Takings]).pipe(Layer.provideMerge(Store))), NodeRuntime.runMain)
