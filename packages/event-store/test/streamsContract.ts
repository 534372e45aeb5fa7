/**
 * What every event store says of its streams, whatever it is made of.
 */
import type * as Vitest from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import type { EventStore, EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { ListStreams } from "@strata/event-store/StreamCatalog"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { account, correct, id, other, price, prices, reason } from "./priceList.ts"

type Store = EventStore["Service"]

/** The stream that tells of a stream, when there is one. */
const about = (store: Store, stream: Fact.StreamId) =>
  Effect.map(
    store.streams.get(Fact.streamId("$stream", stream)),
    Option.match({
      onNone: () => [],
      onSome: (info) => [info.stream]
    })
  )

/** Declares the contract's tests. `open` gives an empty store at each call. */
export const streamsContract = <R>(
  it: Vitest.Vitest.MethodsNonLive<R>,
  open: Effect.Effect<Store, EventStoreError, R | Scope.Scope>
) => {
  it.effect("streams and categories are listed with what they hold", () =>
    Effect.gen(function*() {
      const store = yield* open
      const named = (id: string) => Fact.StreamId.make(id)
      for (const stream of ["b-2", "b-10", "a-x", "b.c-1", "b-2"]) {
        yield* store.append({ facts: [price(1, { stream: named(stream) })] })
      }
      yield* store.append({
        facts: [price(1, { stream: named("b-2") }), price(2, { stream: named("c-1"), eventId: id(1) })]
      })
      yield* store.revise(correct(id(1), { data: { price: 3 } }))
      const list = (options?: ListStreams) =>
        Effect.map(
          store.streams.list(options),
          (streams) => streams.map(({ stream, version }) => `${stream} ${version}`)
        )
      deepStrictEqual(yield* list(), ["a-x 1", "b-10 1", "b-2 3", "b.c-1 1", "c-1 2"])
      deepStrictEqual(yield* list({ category: "b" }), ["b-10 1", "b-2 3"])
      deepStrictEqual(yield* list({ category: "b", limit: 1 }), ["b-10 1"])
      deepStrictEqual(yield* list({ after: named("b-10"), limit: 2 }), ["b-2 3", "b.c-1 1"])
      deepStrictEqual(yield* store.streams.categories, [
        { category: "a", streams: 1n, facts: 1n },
        { category: "b", streams: 2n, facts: 4n },
        { category: "b.c", streams: 1n, facts: 1n },
        { category: "c", streams: 1n, facts: 2n }
      ])
      yield* store.append({ facts: [{ ...price(1, { stream: named("c-1") }), type: "price.left" }] })
      deepStrictEqual(yield* store.streams.types, [
        { category: "a", type: "price.set", facts: 1n },
        { category: "b", type: "price.set", facts: 4n },
        { category: "b.c", type: "price.set", facts: 1n },
        { category: "c", type: "price.left", facts: 1n },
        { category: "c", type: "price.set", facts: 2n }
      ])
      deepStrictEqual((yield* reason(store.streams.list({ limit: 0 })))._tag, "InvalidQuery")
    }))

  it.effect("what is said again under the same id is said once", () =>
    Effect.gen(function*() {
      const store = yield* open
      const saying = { actor: "ada", reason: "audit", eventId: id(1) }
      const first = yield* store.streams.setState(account, "archived", saying)
      yield* store.streams.setState(account, "open", { actor: "ada", reason: "over" })
      deepStrictEqual(yield* store.streams.setState(account, "archived", saying), first)
      deepStrictEqual((yield* store.readStream(Fact.streamId("$stream", account))).length, 2)
      deepStrictEqual(Option.map(yield* store.streams.get(account), ({ state }) => state), Option.some("open"))
    }))

  it.effect("an archived stream takes no facts until it is reopened, a tombstoned one never", () =>
    Effect.gen(function*() {
      const store = yield* open
      const saying = { actor: "ada", reason: "audit" }
      yield* store.append({ facts: [price(1, { eventId: id(1) }), price(1, { stream: other })] })
      const closed = <A>(effect: Effect.Effect<A, EventStoreError>) =>
        Effect.map(reason(effect), (reason) => reason._tag === "StreamClosed" ? reason.state : reason._tag)
      yield* store.streams.setState(account, "archived", saying)
      deepStrictEqual(yield* closed(store.append({ facts: [price(2)] })), "archived")
      deepStrictEqual(yield* closed(store.append({ facts: [price(2)], expect: { [account]: 1 } })), "archived")
      // Whatever version is expected: that it is closed is no conflict, after which one would read again and repeat.
      deepStrictEqual(yield* closed(store.append({ facts: [price(2)], expect: { [account]: 9 } })), "archived")
      deepStrictEqual(yield* closed(store.append({ facts: [price(2, { stream: other }), price(2)] })), "archived")
      deepStrictEqual(yield* closed(store.revise(correct(id(1), { data: 2 }))), "archived")
      yield* store.append({ facts: [price(3, { stream: other })], expect: { [account]: 1 } })
      deepStrictEqual(prices(yield* store.readStream(account)), [1])
      deepStrictEqual((yield* store.streams.list()).map(({ stream }) => stream), [
        ...yield* about(store, account),
        other
      ])
      yield* store.streams.setState(account, "open", saying)
      yield* store.append({ facts: [price(2)], expect: { [account]: 1 } })
      yield* store.streams.setState(account, "tombstoned", saying)
      deepStrictEqual(yield* closed(store.append({ facts: [price(3)] })), "tombstoned")
      deepStrictEqual(yield* closed(store.streams.setState(account, "open", saying)), "tombstoned")
      const said = yield* store.readStream(Fact.streamId("$stream", account))
      deepStrictEqual(said.map(({ actor, type }) => [actor, type]), [
        ["ada", "$stream.archived"],
        ["ada", "$stream.open"],
        ["ada", "$stream.tombstoned"]
      ])
    }))

  it.effect("metadata may be said of a stream that has no facts yet, and does not make it exist", () =>
    Effect.gen(function*() {
      const store = yield* open
      const saying = { actor: "ada", reason: "set up" }
      yield* store.streams.setMetadata(account, { owner: "sales" }, saying)
      yield* store.streams.setMetadata(account, { owner: "support" }, saying)
      deepStrictEqual(
        yield* store.streams.get(account),
        Option.some({ stream: account, version: 0, state: "open" as const, metadata: { owner: "support" } })
      )
      deepStrictEqual(yield* store.streams.get(other), Option.none())
      const missing = yield* reason(store.append({ facts: [price(1)], expect: { [account]: "streamExists" } }))
      deepStrictEqual(missing._tag, "VersionConflict")
      yield* store.append({ facts: [price(1)], expect: { [account]: "noStream" } })
      deepStrictEqual(
        Option.map(yield* store.streams.get(account), ({ metadata, version }) => [metadata, version]),
        Option.some([{ owner: "support" }, 1])
      )
      const path = (stream: Fact.StreamId, actor: string, why: string) =>
        Effect.map(
          reason(store.streams.setMetadata(stream, {}, { actor, reason: why })),
          (reason) => reason._tag === "InvalidAppend" ? reason.path : reason._tag
        )
      deepStrictEqual(yield* path(account, "", "x"), "actor")
      deepStrictEqual(yield* path(account, "ada", ""), "reason")
      deepStrictEqual(yield* path(Fact.streamId("$stream", account), "ada", "x"), "stream")
    }))
}
