/**
 * What the keys of subjects do, wherever they are kept.
 */
import { assert } from "@effect/vitest"
import type * as Vitest from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import type { EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import * as PersonalData from "@strata/event-store/PersonalData"
import * as SealingCrypto from "@strata/event-store/SealingCrypto"
import * as SubjectKeys from "@strata/event-store/SubjectKeys"
import type { SubjectKeyTable } from "@strata/event-store/SubjectKeyTable"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import { id, lobby, masterKey } from "./chatRoom.ts"

const byAda = { actor: "ada", reason: "asked for it" }
const reason = <A>(effect: Effect.Effect<A, EventStoreError>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

/** The fact in which data would be stored. */
const stored = (data: Schema.Json, fact: Partial<Fact.Fact> = {}): Fact.Fact => ({
  position: Fact.Position.make(1n),
  stream: lobby,
  version: 1,
  origin: Fact.Position.make(1n),
  eventId: id(1),
  type: "Said",
  schemaVersion: 1,
  data,
  metadata: {},
  correlationId: id(1),
  causationId: null,
  tenant: "default",
  actor: null,
  traceparent: null,
  validFrom: Timestamp.fromMicros(0n),
  validTo: Timestamp.infinity,
  recordedAt: Timestamp.fromMicros(0n),
  revision: 0,
  revises: null,
  retracted: false,
  reason: null,
  ...fact
})

/** Keys over a table as another process has them, with a memory of its own. */
const over = Effect.fnUntraced(function*(table: SubjectKeyTable, options: Partial<SubjectKeys.Options> = {}) {
  const keys = yield* SubjectKeys.make({ masterKey: masterKey("2026"), ...options }, table).pipe(
    Effect.provide(SealingCrypto.layer)
  )
  const { open, seal } = yield* keys.sealing({ store: "chat", told: (_, position) => Effect.succeed(position) })
  return {
    keys,
    seal: (content: Schema.Json, subject = "u1", eventId = id(1), tenant = "default") =>
      Effect.map(
        seal(tenant, [{
          path: "data",
          stream: lobby,
          eventId,
          data: { room: "lobby", content },
          personal: [{ subject, fields: ["content"] }]
        }]),
        ([data]) => data!
      ),
    open: (...facts: ReadonlyArray<Fact.Fact>) =>
      Effect.map(open(facts), (facts) => facts.map(({ data }) => (data as { readonly content: Schema.Json }).content))
  }
})

type Envelope = { readonly subject: string; readonly key: number; readonly nonce: string; readonly sealed: string }
type Sealed = { readonly room: string; readonly content: Envelope; readonly $personal: ReadonlyArray<string> }
const parts = (data: Schema.Json) => data as Sealed

/** Declares the contract's tests. `open` gives a table; subjects are its tests' own. */
export const subjectKeysContract = <R>(
  it: Vitest.Vitest.MethodsNonLive<R>,
  open: Effect.Effect<SubjectKeyTable, never, R>
) => {
  it.effect("what is stored holds an envelope in the place of a personal field, and all else as it is", () =>
    Effect.gen(function*() {
      const one = yield* over(yield* open)
      const data = yield* one.seal("a secret", "stored 1")
      const { $personal, content, room } = parts(data)
      deepStrictEqual([room, $personal, Object.keys(data as object)], [
        "lobby",
        ["content"],
        ["room", "content", "$personal"]
      ])
      deepStrictEqual(Object.keys(content).toSorted(), ["key", "nonce", "sealed", "subject"])
      for (const part of Object.values(content)) {
        assert.isFalse(String(part).includes("secret") || String(part).includes("stored 1"))
      }
      deepStrictEqual(yield* one.open(stored(data)), ["a secret"])
    }))

  it.effect("the same said again is sealed the same, and anything else is not", () =>
    Effect.gen(function*() {
      const table = yield* open
      const one = yield* over(table)
      const first = yield* one.seal({ a: 1, b: [2] }, "same 1")
      deepStrictEqual(yield* one.seal({ b: [2], a: 1 }, "same 1"), first)
      // By another process as well.
      deepStrictEqual(yield* (yield* over(table)).seal({ a: 1, b: [2] }, "same 1"), first)
      const others = [
        yield* one.seal({ a: 1, b: [2] }, "same 1", id(2)),
        yield* one.seal({ a: 1, b: [2] }, "same 2"),
        yield* one.seal({ a: 1, b: [3] }, "same 1")
      ]
      const nonces = new Set([first, ...others].map((data) => parts(data).content.nonce))
      deepStrictEqual(nonces.size, 4)
    }))

  it.effect("what was changed or moved to another place does not open, and the error names the event", () =>
    Effect.gen(function*() {
      const one = yield* over(yield* open)
      const data = yield* one.seal("secret", "moved 1")
      const other = parts(yield* one.seal("another secret", "moved 2"))
      const { content } = parts(data)
      const flipped = (text: string) => `${text.startsWith("A") ? "B" : "A"}${text.slice(1)}`
      const put = (content: unknown, more: object = {}) => ({ ...(data as object), content, ...more }) as Schema.Json
      const broken: ReadonlyArray<readonly [string, Fact.Fact]> = [
        ["does not open", stored(data, { tenant: "default", stream: Fact.streamId("room", "garden") })],
        ["does not open", stored(data, { eventId: id(2) })],
        ["does not open", stored({ ...(data as object), other: content, $personal: ["other"] } as Schema.Json)],
        ["does not open", stored(put({ ...content, sealed: flipped(content.sealed) }))],
        ["does not open", stored(put({ ...content, nonce: flipped(content.nonce) }))],
        ["does not open", stored(put({ ...content, nonce: "" }))],
        ["does not open", stored(put({ ...content, sealed: "" }))],
        ["does not open", stored(put({ ...other.content, sealed: content.sealed, nonce: content.nonce }))],
        ["malformed", stored(put({ ...content, sealed: "%" }))],
        ["malformed", stored(put("plain"))],
        ["malformed", stored(put(content, { $personal: ["room"] }))],
        ["malformed", stored(put(content, { $personal: ["gone"] }))],
        ["malformed", stored(put(content, { $personal: [1] }))],
        ["malformed", stored(put(content, { $personal: "content" }))],
        ["no key", stored(put({ ...content, key: 1_000_000 }))],
        ["no key", stored(data, { tenant: "acme" })]
      ]
      for (const [problem, fact] of broken) {
        const error = yield* reason(one.open(stored(data, { eventId: id(1) }), fact))
        const found = error._tag === "SealBroken" ? [error.problem, error.eventId, error.position] : [error.message]
        deepStrictEqual(found, [problem, fact.eventId, fact.position])
      }
      // A revision that left the data as it was holds a copy, and opens by the first of its chain.
      deepStrictEqual(yield* one.open(stored(data, { eventId: id(2), revises: id(1) })), ["secret"])
    }))

  it.effect("two who make the key of one subject at once get one key", () =>
    Effect.gen(function*() {
      const table = yield* open
      const all = yield* Effect.forEach(Array.from({ length: 6 }), () => over(table))
      const sealed = yield* Effect.forEach(all, ({ seal }) => seal("secret", "at once"), { concurrency: "unbounded" })
      deepStrictEqual(new Set(sealed.map((data) => JSON.stringify(data))).size, 1)
      for (const { open } of all) deepStrictEqual(yield* open(stored(sealed[0]!)), ["secret"])
    }))

  it.effect("keys of many subjects and tenants are opened in one page", () =>
    Effect.gen(function*() {
      const table = yield* open
      const one = yield* over(table)
      const facts: Array<Fact.Fact> = []
      for (const tenant of ["default", "acme"]) {
        for (let n = 0; n < 20; n++) {
          facts.push(stored(yield* one.seal(`${tenant} ${n}`, `many ${n}`, id(1), tenant), {
            tenant,
            position: Fact.Position.make(BigInt(facts.length + 1))
          }))
        }
      }
      let asked = 0
      const counted: SubjectKeyTable = { ...table, find: (...args) => (asked++, table.find(...args)) }
      const opened = yield* (yield* over(counted)).open(...facts)
      deepStrictEqual(opened, facts.map(({ tenant }, n) => `${tenant} ${n % 20}`))
      deepStrictEqual(asked, 1)
    }))

  it.effect("an erasure elsewhere is seen at once by who reads of it, and by others when their keys are old", () =>
    Effect.gen(function*() {
      const table = yield* open
      const here = yield* over(table)
      const reader = yield* over(table, { timeToLive: "1 hour" })
      const other = yield* over(table, { timeToLive: "1 hour" })
      const hasty = yield* over(table, { timeToLive: 0 })
      const data = yield* here.seal("secret", "seen")
      for (const { open } of [reader, other, hasty]) deepStrictEqual(yield* open(stored(data)), ["secret"])
      yield* other.seal("secret", "seen")
      const { key, subject } = yield* here.keys.erase({ subject: "seen", ...byAda })
      const erased = [{ _tag: "Erased", subject }]
      deepStrictEqual(yield* here.open(stored(data)), erased)
      deepStrictEqual(yield* hasty.open(stored(data)), erased)
      deepStrictEqual(yield* other.open(stored(data)), ["secret"])
      const told = stored({ subject, key, reason: "asked for it" }, {
        position: Fact.Position.make(2n),
        type: PersonalData.erasedType,
        stream: PersonalData.aboutSubject(subject)
      })
      for (const { open } of [reader, other]) {
        // In the same page already.
        deepStrictEqual((yield* open(stored(data), told))[0], erased[0])
        deepStrictEqual(yield* open(stored(data)), erased)
      }
      // And what is sealed from then on is sealed under a new key.
      const again = yield* other.seal("secret", "seen")
      assert.isAbove(parts(again).content.key, key)
      deepStrictEqual(yield* here.open(stored(again)), ["secret"])
    }))

  it.effect("who has keys looked up again sees every erasure elsewhere, and seals under a new key", () =>
    Effect.gen(function*() {
      const table = yield* open
      const here = yield* over(table)
      const other = yield* over(table, { timeToLive: "1 hour" })
      const data = yield* other.seal("secret", "looked up")
      deepStrictEqual(yield* other.open(stored(data)), ["secret"])
      const { key, subject } = yield* here.keys.erase({ subject: "looked up", ...byAda })
      deepStrictEqual(yield* other.open(stored(data)), ["secret"])
      yield* other.keys.refresh
      deepStrictEqual(yield* other.open(stored(data)), [{ _tag: "Erased", subject }])
      assert.isAbove(parts(yield* other.seal("secret", "looked up")).content.key, key)
    }))

  it.effect("a key under a master key that is not given, or is another one, is no erasure: the error names it", () =>
    Effect.gen(function*() {
      const table = yield* open
      const one = yield* over(table, { masterKey: masterKey("first", 1) })
      const data = yield* one.seal("secret", "master 1")
      const problemOf = Effect.fnUntraced(function*(options: Partial<SubjectKeys.Options>) {
        const other = yield* over(table, options)
        const errors = [yield* reason(other.open(stored(data))), yield* reason(other.seal("more", "master 1", id(2)))]
        return errors.map((error) =>
          error._tag === "MasterKeyRefused" ? `${error.masterKey} ${error.problem}` : error._tag
        )
      })
      deepStrictEqual(yield* problemOf({ masterKey: masterKey("second", 2) }), ["first unknown", "first unknown"])
      deepStrictEqual(yield* problemOf({ masterKey: masterKey("first", 2) }), ["first wrong", "first wrong"])
      const both = yield* over(table, {
        masterKey: masterKey("second", 2),
        olderMasterKeys: [masterKey("first", 1)]
      })
      deepStrictEqual(yield* both.open(stored(data)), ["secret"])
    }))

  it.effect("after its keys are wrapped anew, a master key may be left out, and no fact was touched", () =>
    Effect.gen(function*() {
      const table = yield* open
      const old = yield* over(table, { masterKey: masterKey("2024", 4) })
      const ours = yield* old.seal("ours", "rotated 1")
      const theirs = yield* old.seal("theirs", "rotated 1", id(1), "acme")
      const next = yield* over(table, { masterKey: masterKey("2025", 5), olderMasterKeys: [masterKey("2024", 4)] })
      const newer = yield* next.seal("newer", "rotated 2")
      const refusing = yield* over(table, { masterKey: masterKey("2025", 5) })
      deepStrictEqual((yield* reason(refusing.keys.rewrap))._tag, "MasterKeyRefused")
      const all = [masterKey("2024", 4), masterKey("2026"), masterKey("first", 1), masterKey("2025", 5)]
      const newest = masterKey("2027", 9)
      const moving = yield* over(table, { masterKey: newest, olderMasterKeys: all })
      assert.isAtLeast(yield* moving.keys.rewrap, 3)
      deepStrictEqual(yield* moving.keys.rewrap, 0)
      const last = yield* over(table, { masterKey: newest })
      deepStrictEqual(yield* last.open(stored(ours), stored(newer, { position: Fact.Position.make(2n) })), [
        "ours",
        "newer"
      ])
      deepStrictEqual(yield* last.open(stored(theirs, { tenant: "acme" })), ["theirs"])
      // Back, for the other tests of this table.
      yield* (yield* over(table, { masterKey: masterKey("2026"), olderMasterKeys: [newest] })).keys.rewrap
    }))

  it.effect("a master key is 32 bytes as Base64 under a name of its own", () =>
    Effect.gen(function*() {
      const table = yield* open
      const refusal = (options: Partial<SubjectKeys.Options>) =>
        Effect.map(Effect.flip(over(table, options)), (error) => `${error.masterKey}: ${error.problem}`)
      const short = { id: "short", key: Redacted.make("AAAA") }
      const garbled = { id: "garbled", key: Redacted.make("%%%") }
      deepStrictEqual(yield* refusal({ masterKey: short }), "short: expected 32 bytes as Base64")
      deepStrictEqual(yield* refusal({ olderMasterKeys: [garbled] }), "garbled: expected 32 bytes as Base64")
      deepStrictEqual(yield* refusal({ olderMasterKeys: [masterKey("2026")] }), "2026: given twice")
    }))

  it.effect("the key of a tenant's subject is no other tenant's", () =>
    Effect.gen(function*() {
      const one = yield* over(yield* open)
      const ours = yield* one.seal("ours", "tenants")
      const theirs = yield* one.seal("theirs", "tenants", id(1), "acme")
      yield* one.keys.erase({ subject: "tenants", ...byAda }).pipe(Effect.provideService(CurrentTenant, "acme"))
      deepStrictEqual(yield* one.open(stored(ours)), ["ours"])
      deepStrictEqual(yield* one.open(stored(theirs, { tenant: "acme" })), [
        { _tag: "Erased", subject: parts(theirs).content.subject }
      ])
    }))
}
