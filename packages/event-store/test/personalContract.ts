/**
 * What every event store does with what facts hold of persons, whatever it is made of.
 */
import { assert } from "@effect/vitest"
import type * as Vitest from "@effect/vitest"
import { assertNone, deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import type { EventStore, EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import * as PersonalData from "@strata/event-store/PersonalData"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type ChatStore, contents, decoded, events, garden, id, Introduced, lobby, Said, said } from "./chatRoom.ts"

const reason = <A>(effect: Effect.Effect<A, EventStoreError>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)
const refused = <A>(effect: Effect.Effect<A, EventStoreError>) =>
  Effect.map(reason(effect), (reason) => "path" in reason ? `${reason._tag} ${reason.path}` : reason._tag)

const byAda = { actor: "ada", reason: "asked for it" }
const log = { after: Fact.beginning }

/** Declares the contract's tests. `open` gives an empty store at each call, `bare` one without keys. */
export const personalContract = <E, R>(
  it: Vitest.Vitest.MethodsNonLive<R>,
  open: Effect.Effect<ChatStore, EventStoreError | E, R | Scope.Scope>,
  bare: Effect.Effect<EventStore["Service"], EventStoreError, R | Scope.Scope>
) => {
  it.effect("a personal field comes back as it was said, with all else of the fact, whichever way it is read", () =>
    Effect.gen(function*() {
      const { store } = yield* open
      const event = Said.make({
        sender: "u1",
        room: "lobby",
        content: "\u0000 and \ud800 and 😀",
        mood: { word: "glad", strength: 3 }
      })
      yield* store.append({ facts: [events.encode(event, { stream: lobby, eventId: id(1), metadata: { a: 1 } })] })
      const fact = (yield* store.readStream(lobby))[0]!
      const data = {
        sender: "u1",
        room: "lobby",
        content: "\u0000 and \ud800 and 😀",
        mood: { word: "glad", strength: 3 }
      }
      deepStrictEqual([fact.data, fact.metadata, fact.schemaVersion], [data, { a: 1 }, 2])
      const reads: ReadonlyArray<Effect.Effect<ReadonlyArray<Fact.Fact>, EventStoreError>> = [
        store.readLog(log),
        Effect.map(store.readLogPage(log), ({ facts }) => facts),
        Effect.map(store.readLogPage({ ...log, filter: { category: "room" } }), ({ facts }) => facts),
        Effect.map(store.readStreamPage(lobby), ({ facts }) => facts),
        Effect.map(store.read({ stream: lobby }), ({ facts }) => facts),
        store.readStreams({ streams: [fact], upTo: fact.position }),
        Effect.map(store.read({ revisions: "all" }), ({ facts }) => facts),
        store.history(id(1)),
        Effect.map(store.historyPage(id(1)), ({ facts }) => facts),
        Effect.map(store.get(id(1)), Option.toArray),
        Effect.map(Stream.runHead(store.subscribe(log)), (facts) => Option.getOrElse(facts, () => []))
      ]
      for (const read of reads) deepStrictEqual(yield* read, [fact])
      deepStrictEqual(decoded([fact]), [event])
    }))

  it.effect("once its subject is erased, every read of any moment shows that instead, and others' fields stay", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      const first = yield* store.append({ facts: [said("u1", "one", { eventId: id(1) }), said("u2", "two")] })
      yield* store.append({ facts: [said("u1", "three", { stream: garden })] })
      const { key, subject } = yield* keys.erase({ subject: "u1", ...byAda })
      assert.isAbove(key, 0)
      const known = [{ position: first.position }, { time: first.recordedAt }, undefined]
      for (const knownAt of known) {
        const { facts } = yield* store.read({ stream: lobby, knownAt })
        deepStrictEqual(contents(facts), ["Erased", "two"])
      }
      deepStrictEqual(contents(yield* store.readLog(log)), ["Erased", "two", "Erased"])
      deepStrictEqual(contents((yield* store.readLogPage({ ...log, filter: { types: ["Said"] } })).facts), [
        "Erased",
        "two",
        "Erased"
      ])
      deepStrictEqual(contents(yield* store.history(id(1))), ["Erased"])
      deepStrictEqual(contents(Option.toArray(yield* store.get(id(1)))), ["Erased"])
      const heard = Option.getOrThrow(yield* Stream.runHead(store.subscribe(log)))
      deepStrictEqual(contents(heard), ["Erased", "two", "Erased"])
      const [event] = decoded(yield* store.history(id(1)))
      deepStrictEqual(event, {
        _tag: "Said",
        sender: "u1",
        room: "lobby",
        content: { _tag: "Erased", subject }
      })
    }))

  it.effect("of an event about two persons, one may be erased and the other stays", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      const event = Introduced.make({ first: "u1", second: "u2", nameOfFirst: "Ada", nameOfSecond: "Bob" })
      yield* store.append({ facts: [events.encode(event, { stream: lobby })] })
      const { subject } = yield* keys.erase({ subject: "u2", ...byAda })
      deepStrictEqual(decoded(yield* store.readStream(lobby)), [
        { ...event, nameOfSecond: { _tag: "Erased", subject } }
      ])
    }))

  it.effect("a subject that comes back gets a new key, and what was erased before stays so", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      yield* store.append({ facts: [said("u1", "one")] })
      const first = yield* keys.erase({ subject: "u1", ...byAda })
      yield* store.append({ facts: [said("u1", "two")] })
      deepStrictEqual(contents(yield* store.readStream(lobby)), ["Erased", "two"])
      const second = yield* keys.erase({ subject: "u1", ...byAda })
      assert.isAbove(second.key, first.key)
      deepStrictEqual(contents(yield* store.readStream(lobby)), ["Erased", "Erased"])
    }))

  it.effect("to erase again writes nothing, and tells who erased when and why", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      yield* store.append({ facts: [said("u1", "one")] })
      const first = yield* keys.erase({ subject: "u1", ...byAda })
      deepStrictEqual([first.again, first.facts.length], [false, 1])
      const head = yield* store.head
      deepStrictEqual(yield* keys.erase({ subject: "u1", actor: "bob", reason: "again" }), {
        ...first,
        again: true,
        facts: []
      })
      deepStrictEqual(yield* store.head, head)
      const unknown = yield* keys.erase({ subject: "nobody", ...byAda })
      deepStrictEqual([unknown.key, unknown.again, unknown.facts], [0, false, []])
      deepStrictEqual((yield* keys.erase({ subject: "nobody", ...byAda })).again, true)
      deepStrictEqual(yield* store.head, head)
    }))

  it.effect("an erasure is a fact of the log, which tells by what digest to find the streams to fold again", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      yield* store.append({ facts: [said("u1", "one"), said("u2", "two"), said("u1", "three", { stream: garden })] })
      yield* store.append({ facts: [said("u1", "four"), said("u2", "five", { stream: Fact.streamId("hall", "1") })] })
      const { facts, key, subject } = yield* keys.erase({ subject: "u1", ...byAda })
      deepStrictEqual(facts, [{ store: store.name, position: Fact.Position.make(6n) }])
      const told = (yield* store.readLog(log)).at(-1)!
      deepStrictEqual([told.position, told.stream, told.version, told.actor, told.type], [
        6n,
        `$subject-${subject}`,
        1,
        "ada",
        "$subject.erased"
      ])
      deepStrictEqual(PersonalData.erasureOf(told), Option.some({ subject, key, reason: "asked for it" }))
      const of = { store: store.name, subject }
      deepStrictEqual(yield* keys.streamsOf(of), [garden, lobby])
      deepStrictEqual(yield* keys.streamsOf({ ...of, limit: 1 }), [garden])
      deepStrictEqual(yield* keys.streamsOf({ ...of, after: garden }), [lobby])
      deepStrictEqual(yield* keys.streamsOf({ ...of, store: "another store" }), [])
      deepStrictEqual(yield* refused(keys.streamsOf({ ...of, subject: "u1" })), "InvalidQuery subject")
      deepStrictEqual(yield* refused(keys.streamsOf({ ...of, limit: 0 })), "InvalidQuery limit")
      // The subject itself stands nowhere.
      assert.isFalse(Object.values(told.data as object).includes("u1"))
      // Subscribers that wait hear of it.
      deepStrictEqual(Option.getOrThrow(yield* Stream.runHead(store.subscribe({ after: Fact.Position.make(5n) }))), [
        told
      ])
    }))

  it.effect("a projection that folds these streams again holds nothing of the subject any more", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      yield* store.append({ facts: [said("u1", "one"), said("u2", "two"), said("u1", "three", { stream: garden })] })
      const projection = new Map<string, ReadonlyArray<string>>()
      const foldStream = (stream: Fact.StreamId) =>
        Effect.map(store.read({ stream }), ({ facts }) => projection.set(stream, contents(facts)))
      const handle = Effect.fnUntraced(function*(fact: Fact.Fact) {
        const erasure = PersonalData.erasureOf(fact)
        const streams = Option.isNone(erasure)
          ? [fact.stream]
          : yield* keys.streamsOf({ store: store.name, subject: erasure.value.subject })
        for (const stream of streams) yield* foldStream(stream)
      })
      for (const fact of yield* store.readLog(log)) yield* handle(fact)
      deepStrictEqual([...projection], [[lobby, ["one", "two"]], [garden, ["three"]]])
      const before = yield* store.head
      yield* keys.erase({ subject: "u1", ...byAda })
      for (const fact of yield* store.readLog({ after: before })) yield* handle(fact)
      deepStrictEqual([...projection], [[lobby, ["Erased", "two"]], [garden, ["Erased"]]])
    }))

  it.effect("an append that is sent again is known for the first one, also after its subject was erased", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      const mood = (data: object) => ({ ...said("u1", "one", { eventId: id(1) }), data }) as Fact.NewFact
      const facts = [
        {
          ...mood({ sender: "u1", room: "lobby", content: "one", mood: { word: "glad", strength: 3 } }),
          personal: [{ subject: "u1", fields: ["content", "mood"] }]
        },
        said("u2", "two", { eventId: id(2) })
      ]
      const first = yield* store.append({ facts })
      const again = { ...first, duplicate: true }
      const isAgain = (append: ReadonlyArray<Fact.NewFact>) =>
        Effect.map(
          store.append({ facts: append }),
          ({ duplicate, position }) => deepStrictEqual([duplicate, position], [again.duplicate, again.position])
        )
      yield* isAgain(facts)
      // Whatever the order of keys, as with all JSON.
      const turned = {
        ...facts[0]!,
        data: { mood: { strength: 3, word: "glad" }, content: "one", room: "lobby", sender: "u1" }
      }
      yield* isAgain([turned, facts[1]!])
      const other = { ...facts[0]!, data: { sender: "u1", room: "lobby", content: "other", mood: null } }
      deepStrictEqual((yield* reason(store.append({ facts: [other, facts[1]!] })))._tag, "EventIdTaken")
      yield* keys.erase({ subject: "u1", ...byAda })
      yield* isAgain(facts)
      const elsewhere = { ...facts[0]!, data: { sender: "u1", room: "garden", content: "one", mood: null } }
      deepStrictEqual((yield* reason(store.append({ facts: [elsewhere, facts[1]!] })))._tag, "EventIdTaken")
      deepStrictEqual(contents(yield* store.readStream(lobby)), ["Erased", "two"])
      // Another person's fact is not this one.
      const others = { ...facts[0]!, personal: [{ subject: "u3", fields: ["content", "mood"] }] }
      deepStrictEqual((yield* reason(store.append({ facts: [others, facts[1]!] })))._tag, "EventIdTaken")
    }))

  it.effect("what is corrected, retracted and restored is erased in all of its revisions", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      yield* store.append({ facts: [said("u1", "one", { eventId: id(1) })] })
      const correct = (content: string, n: number) =>
        store.revise(events.encodeCorrection(Said.make({ sender: "u1", room: "lobby", content }), {
          revises: id(1),
          eventId: id(n),
          reason: "typing error",
          actor: "ada"
        }))
      yield* correct("two", 2)
      deepStrictEqual((yield* correct("two", 2)).duplicate, true)
      deepStrictEqual((yield* reason(correct("other", 2)))._tag, "EventIdTaken")
      // By any member of the chain, and of that only the validity, which leaves the data as it is.
      const [{ validFrom }] = (yield* store.history(id(1))) as [Fact.Fact]
      yield* store.revise({
        _tag: "Correction",
        revises: id(2),
        validTo: (validFrom + 1n) as typeof validFrom,
        ...byAda
      })
      const retraction = yield* store.revise({ _tag: "Retraction", revises: id(1), ...byAda })
      yield* store.revise({ _tag: "Retraction", revises: retraction.eventId, ...byAda })
      deepStrictEqual(contents(yield* store.history(id(1))), ["one", "two", "two", "two", "two"])
      yield* keys.erase({ subject: "u1", ...byAda })
      deepStrictEqual(contents(yield* store.history(id(1))), ["Erased", "Erased", "Erased", "Erased", "Erased"])
      deepStrictEqual((yield* correct("two", 2)).duplicate, true)
    }))

  it.effect("what is left of an erased event can be corrected, and the erased stays erased", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      yield* store.append({ facts: [said("u1", "one", { eventId: id(1) })] })
      const { subject } = yield* keys.erase({ subject: "u1", ...byAda })
      const [event] = decoded(yield* store.readStream(lobby))
      const moved = { ...event!, room: "garden" }
      yield* store.revise(
        events.encodeCorrection(moved, { revises: id(1), ...byAda })
      )
      const { facts } = yield* store.read({ stream: lobby })
      deepStrictEqual(decoded(facts), [
        { _tag: "Said", sender: "u1", room: "garden", content: { _tag: "Erased", subject } }
      ])
    }))

  it.effect("a correction of a fact that is not there is refused, and makes nothing", () =>
    Effect.gen(function*() {
      const { store } = yield* open
      const correction = events.encodeCorrection(Said.make({ sender: "u1", room: "lobby", content: "x" }), {
        revises: id(9),
        ...byAda
      })
      deepStrictEqual((yield* reason(store.revise(correction)))._tag, "UnknownFact")
      deepStrictEqual(yield* store.head, Fact.beginning)
    }))

  it.effect("upcasts see what readers see: the field, or that it is erased", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      const old: Fact.NewFact = {
        stream: lobby,
        type: "Said",
        schemaVersion: 1,
        data: { sender: "u1", text: "one" },
        personal: [{ subject: "u1", fields: ["text"] }]
      }
      yield* store.append({ facts: [old] })
      const shown = Effect.map(store.readStream(lobby), decoded)
      deepStrictEqual(yield* shown, [{ _tag: "Said", sender: "u1", room: "lobby", content: "one" }])
      const { subject } = yield* keys.erase({ subject: "u1", ...byAda })
      deepStrictEqual(yield* shown, [
        { _tag: "Said", sender: "u1", room: "lobby", content: { _tag: "Erased", subject } }
      ])
    }))

  it.effect("a fact that was stored before its field was personal is read as it is", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      yield* store.append({
        facts: [{ ...said("u1", "plain"), personal: undefined }, said("u1", "sealed")]
      })
      deepStrictEqual(contents(yield* store.readStream(lobby)), ["plain", "sealed"])
      yield* keys.erase({ subject: "u1", ...byAda })
      deepStrictEqual(contents(yield* store.readStream(lobby)), ["plain", "Erased"])
    }))

  it.effect("questions look at what is stored, so none finds a fact by a personal field", () =>
    Effect.gen(function*() {
      const { store } = yield* open
      yield* store.append({ facts: [said("u1", "one")] })
      const found = (path: string, value: string) =>
        Effect.map(
          store.read({ stream: lobby, data: [{ path, is: "equal", value }] }),
          ({ facts }) => contents(facts)
        )
      deepStrictEqual(yield* found("/room", "lobby"), ["one"])
      deepStrictEqual(yield* found("/content", "one"), [])
      const { facts } = yield* store.read({ stream: lobby, data: [{ path: "/content", is: "atLeast", value: "" }] })
      deepStrictEqual(facts, [])
    }))

  it.effect("tenants have nothing in common: a subject of the same name is another one", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      const as = Effect.provideService(CurrentTenant, "acme")
      yield* store.append({ facts: [said("u1", "ours")] })
      yield* as(store.append({ facts: [said("u1", "theirs")] }))
      const ours = yield* keys.erase({ subject: "u1", ...byAda })
      deepStrictEqual(contents(yield* store.readStream(lobby)), ["Erased"])
      deepStrictEqual(contents(yield* as(store.readStream(lobby))), ["theirs"])
      deepStrictEqual(contents(yield* store.readLog(log)), ["Erased", "theirs"])
      deepStrictEqual(yield* as(keys.streamsOf({ store: store.name, subject: ours.subject })), [])
      const theirs = yield* as(keys.erase({ subject: "u1", ...byAda }))
      assert.notStrictEqual(theirs.subject, ours.subject)
      deepStrictEqual(contents(yield* store.readLog(log)), ["Erased", "Erased"])
    }))

  it.effect("a fact that only calls itself an erasure erases nothing", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      yield* store.append({ facts: [said("u1", "one")] })
      const { key, subject } = yield* keys.erase({ subject: "u1", ...byAda })
      yield* store.append({ facts: [said("u1", "two")] })
      const claims = Arr.range(key + 1, key + 5).map((key): Fact.NewFact => ({
        stream: garden,
        type: PersonalData.erasedType,
        data: { subject, key, reason: "none" }
      }))
      yield* store.append({ facts: claims })
      deepStrictEqual(contents(yield* store.readLog(log)), ["Erased", "two"])
      deepStrictEqual(contents(yield* store.readLog(log)), ["Erased", "two"])
      const stream = PersonalData.aboutSubject(subject)
      deepStrictEqual(
        yield* refused(store.append({ facts: [{ ...claims[0]!, stream }] })),
        "InvalidAppend facts[0].stream"
      )
    }))

  it.effect("snapshots of the streams that hold something of a subject go with its key", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      const { position } = yield* store.append({ facts: [said("u1", "one")] })
      yield* store.saveSnapshot({ stream: lobby, version: 1, position, schemaVersion: 1, state: { last: "one" } })
      yield* keys.erase({ subject: "u1", ...byAda })
      assertNone(yield* store.loadSnapshot(lobby, 1))
    }))

  it.effect("without keys what is personal is refused by name, and what is not is stored", () =>
    Effect.gen(function*() {
      const store = yield* bare
      const error = yield* reason(store.append({
        facts: [{ stream: garden, type: "Plain", data: 1 }, said("u1", "one", { eventId: id(1) })]
      }))
      deepStrictEqual([error._tag, error._tag === "NoSubjectKeys" && error.eventId], ["NoSubjectKeys", id(1)])
      deepStrictEqual(yield* store.head, Fact.beginning)
      yield* store.append({ facts: [{ stream: garden, type: "Plain", data: 1, eventId: id(2) }] })
      const correction = { ...byAda, _tag: "Correction", revises: id(2), data: { a: "b" } } as const
      const personal = [{ subject: "u1", fields: ["a"] }]
      deepStrictEqual((yield* reason(store.revise({ ...correction, personal })))._tag, "NoSubjectKeys")
      yield* store.revise(correction)
      deepStrictEqual(yield* store.head, 2n)
    }))

  it.effect("fields and subjects that cannot be are refused by name, before anything is looked for", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      const append = (fact: Partial<Fact.NewFact>) =>
        refused(store.append({
          facts: [said("u1", "one"), { stream: lobby, type: "Said", data: { a: "b", c: "d" }, ...fact }]
        }))
      const claim = (subject: string, ...fields: ReadonlyArray<string>) => ({ personal: [{ subject, fields }] })
      deepStrictEqual(yield* append(claim("", "a")), "InvalidAppend facts[1].personal[0].subject")
      deepStrictEqual(yield* append(claim("u1", "b")), "InvalidAppend facts[1].personal[0].fields")
      deepStrictEqual(yield* append(claim("u1", "a", "a")), "InvalidAppend facts[1].personal[0].fields")
      deepStrictEqual(
        yield* append({ personal: [{ subject: "u1", fields: ["a"] }, { subject: "u2", fields: ["a"] }] }),
        "InvalidAppend facts[1].personal[1].fields"
      )
      deepStrictEqual(yield* append({ data: ["a"], ...claim("u1", "0") }), "InvalidAppend facts[1].personal[0].fields")
      const many = Array.from({ length: 17 }, () => ({ subject: "u1", fields: [] }))
      deepStrictEqual(yield* append({ personal: many }), "InvalidAppend facts[1].personal")
      deepStrictEqual(
        yield* append({ data: { a: Number.NaN }, ...claim("u1", "a") }),
        "InvalidAppend facts[1].data.a"
      )
      deepStrictEqual(yield* append({ data: { $personal: [] } }), "InvalidAppend facts[1].data")
      const corrected = refused(
        store.revise({ _tag: "Correction", revises: id(1), data: { $personal: ["a"] }, ...byAda })
      )
      deepStrictEqual(yield* corrected, "InvalidAppend data")
      for (const [path, wrong] of Object.entries({ subject: "", actor: "", reason: " " })) {
        deepStrictEqual(
          yield* refused(keys.erase({ subject: "u1", ...byAda, [path]: wrong })),
          `InvalidAppend ${path}`
        )
      }
      deepStrictEqual(yield* store.head, Fact.beginning)
    }))

  it.effect("an event that is erased cannot be written, where it is new", () =>
    Effect.gen(function*() {
      const { store } = yield* open
      const erased = { _tag: "Said", sender: "u1", room: "lobby", content: { _tag: "Erased", subject: "x" } } as const
      const encoded = yield* Effect.exit(Effect.sync(() => events.encode(erased, { stream: lobby })))
      deepStrictEqual(encoded._tag, "Failure")
      deepStrictEqual(
        Result.isSuccess(events.decode({
          ...(yield* Effect.andThen(store.append({ facts: [said("u1", "one")] }), store.readStream(lobby)))[0]!,
          data: { sender: "u1", room: "lobby", content: { _tag: "Erased", subject: "x" } }
        })),
        true
      )
    }))
}
