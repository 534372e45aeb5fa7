import { it } from "@effect/vitest"
import { deepStrictEqual, throws } from "@effect/vitest/utils"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import type * as PersonalData from "@strata/event-store/PersonalData"
import * as SealingCrypto from "@strata/event-store/SealingCrypto"
import * as SubjectKeys from "@strata/event-store/SubjectKeys"
import * as SubjectKeysMemory from "@strata/event-store/SubjectKeysMemory"
import * as Aead from "effect/crypto/Aead"
import * as Mac from "effect/crypto/Mac"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { describe, expectTypeOf } from "vitest"
import { type ChatStore, masterKey, Said } from "./chatRoom.ts"
import { personalContract } from "./personalContract.ts"
import { check, History } from "./personalModel.ts"
import { subjectKeysContract } from "./subjectKeysContract.ts"

let stores = 0
const bare = Effect.suspend(() => EventStoreMemory.make({ name: `store ${++stores}` })).pipe(
  Effect.provide(SecureRandom.layerWebCrypto)
)
const open = Effect.gen(function*() {
  const keys = yield* SubjectKeys.make({ masterKey: masterKey("2026") }, yield* SubjectKeysMemory.make).pipe(
    Effect.provide(SealingCrypto.layer)
  )
  const opened: ChatStore = { keys, store: yield* Effect.provideService(bare, SubjectKeys.SubjectKeys, keys) }
  return opened
})

describe("personal data in memory", () => {
  personalContract(it, open, bare)
  subjectKeysContract(it, SubjectKeysMemory.make)

  it.effect.prop(
    "whatever was said, corrected and erased, readers see what a plain model says",
    [History],
    ([steps]) => Effect.flatMap(open, (opened) => check(opened, steps)),
    { arbitrary: { runs: 300 } }
  )
})

describe("the cryptography of personal data", () => {
  const bytes = (hex: string) => Result.getOrThrow(Hex.decode(hex))

  it.effect("seals as the test vectors of AES-256-GCM and HMAC-SHA-256 say", () =>
    Effect.gen(function*() {
      const aead = yield* Aead.Aead
      // The GCM submission to NIST (McGrew and Viega), test case 16.
      const key = yield* Aead.key(
        Aead.aes256Gcm,
        bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
      )
      const options = {
        nonce: bytes("cafebabefacedbaddecaf888"),
        aad: bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2")
      }
      const plain = bytes(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
      )
      const sealed = yield* aead.encrypt(key, plain, options)
      deepStrictEqual(
        Hex.encode(sealed),
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662" +
          "76fc6ece0f4e1768cddf8853bb2d551b"
      )
      deepStrictEqual(Hex.encode(yield* aead.decrypt(key, sealed, options)), Hex.encode(plain))
      // RFC 4231, test case 2.
      const mac = yield* Mac.Mac
      const jefe = yield* Mac.key(Mac.hmacSha256, new TextEncoder().encode("Jefe"))
      deepStrictEqual(
        Hex.encode(yield* mac.sign(jefe, new TextEncoder().encode("what do ya want for nothing?"))),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
      )
    }).pipe(Effect.provide(SealingCrypto.layer)))

  it.effect("opens nothing of which a bit was turned", () =>
    Effect.gen(function*() {
      const aead = yield* Aead.Aead
      const key = yield* aead.generateKey(Aead.aes256Gcm)
      const nonce = new Uint8Array(12)
      const sealed = yield* aead.encrypt(key, new TextEncoder().encode("a secret"), { nonce })
      for (let bit = 0; bit < 8 * sealed.length; bit++) {
        const turned = Uint8Array.from(sealed)
        turned[bit >> 3]! ^= 1 << (bit & 7)
        deepStrictEqual((yield* Effect.flip(aead.decrypt(key, turned, { nonce }))).reason._tag, "DecryptionFailed")
      }
    }).pipe(Effect.provide(SealingCrypto.layer)))
})

describe("personal fields of an event definition", () => {
  it("are what they are to who writes, and may be erased to who reads", () => {
    type Written = Parameters<typeof Said.make>[0]
    type Read = typeof Said.schema.Type
    expectTypeOf<Written["content"]>().toEqualTypeOf<string>()
    expectTypeOf<Read["content"]>().toEqualTypeOf<string | PersonalData.Erased>()
    expectTypeOf<Read["sender"]>().toEqualTypeOf<string>()
    expectTypeOf<Read["mood"]>().toEqualTypeOf<
      { readonly word: string; readonly strength: number } | PersonalData.Erased | undefined
    >()
    deepStrictEqual(Said.make({ sender: "u1", room: "lobby", content: "one" })._tag, "Said")
  })

  it("must be fields of the event, each of one subject", () => {
    const fields = { a: Schema.String, b: Schema.String }
    const subject = () => "u1"
    // @ts-expect-error there is no such field
    throws(() => EventDefinition.make("Wrong", { fields, personal: { subject, fields: ["c"] } }))
    throws(() =>
      EventDefinition.make("Twice", {
        fields,
        personal: [{ subject, fields: ["a"] }, { subject, fields: ["a", "b"] }]
      })
    )
  })
})
