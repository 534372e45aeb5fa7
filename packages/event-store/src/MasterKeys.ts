/**
 * The master keys of an application, under which it has the keys of subjects wrapped.
 *
 * **Details**
 *
 * Wrapped is with AES-256-GCM, bound to the tenant and the subject, so that the key of one cannot be put in the place of another's.
 * The nonce is random: up to 2^32 keys may be wrapped under one master key (NIST SP 800-38D, 8.3).
 *
 * @since 0.1.0
 */
import * as Aead from "effect/crypto/Aead"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { EventStoreError } from "./EventStore.ts"
import * as Fields from "./Fields.ts"
import { MasterKeyRefused } from "./PersonalData.ts"
import type { WrappedKey } from "./SubjectKeyTable.ts"

/**
 * A master key. `id` names it in the database and in errors; `key` are 32 bytes as Base64.
 *
 * @category models
 * @since 0.1.0
 */
export interface MasterKey {
  readonly id: string
  readonly key: Redacted.Redacted<string>
}

/**
 * A master key that cannot be one, or a second one of the same id.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidMasterKey extends Schema.TaggedError<InvalidMasterKey>()("InvalidMasterKey", {
  masterKey: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `Master key ${this.masterKey}: ${this.problem}`
  }
}

/**
 * Whose key is wrapped. `subject` is a digest.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subject {
  readonly tenant: string
  readonly subject: string
}

/**
 * Wraps under the newest of them, and unwraps what any of them has wrapped.
 *
 * @category models
 * @since 0.1.0
 */
export interface MasterKeys {
  readonly newest: string
  readonly wrap: (subject: Subject, key: Uint8Array) => Effect.Effect<WrappedKey>
  readonly unwrap: (subject: Subject, wrapped: WrappedKey) => Effect.Effect<Uint8Array, EventStoreError>
}

/**
 * The newest one and those before it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  newest: MasterKey,
  older: ReadonlyArray<MasterKey>
): Effect.fn.Return<MasterKeys, InvalidMasterKey, Aead.Aead | SecureRandom.SecureRandom> {
  const aead = yield* Aead.Aead
  const random = yield* SecureRandom.SecureRandom
  const keys = new Map<string, Aead.Key>()
  for (const { id, key } of [newest, ...older]) {
    if (!Fields.isLabel(id)) return yield* new InvalidMasterKey({ masterKey: id, problem: Fields.labelExpected })
    if (keys.has(id)) return yield* new InvalidMasterKey({ masterKey: id, problem: "given twice" })
    keys.set(id, yield* keyOf(id, key))
  }
  const newestKey = keys.get(newest.id)!

  return {
    newest: newest.id,
    wrap: Effect.fnUntraced(function*(subject, key) {
      const nonce = yield* random.randomBytes(nonceLength)
      const sealed = yield* Effect.orDie(aead.encrypt(newestKey, key, { nonce, aad: placeOf(subject) }))
      const wrapped = new Uint8Array(nonceLength + sealed.length)
      wrapped.set(nonce)
      wrapped.set(sealed, nonceLength)
      return { master: newest.id, wrapped }
    }),
    unwrap: (subject, { master, wrapped }) => {
      const key = keys.get(master)
      if (key === undefined) return refuse(master, subject, "unknown")
      const nonce = wrapped.subarray(0, nonceLength)
      if (nonce.length < nonceLength) return refuse(master, subject, "wrong")
      return Effect.catch(
        aead.decrypt(key, wrapped.subarray(nonceLength), { nonce, aad: placeOf(subject) }),
        () => refuse(master, subject, "wrong")
      )
    }
  }
})

const nonceLength = 12

const keyOf = (id: string, key: Redacted.Redacted<string>) => {
  const bytes = Base64.decode(Redacted.value(key))
  return Result.isSuccess(bytes) && bytes.success.length === Aead.aes256Gcm.keyLength
    ? Effect.orDie(Aead.key(Aead.aes256Gcm, bytes.success))
    : Effect.fail(new InvalidMasterKey({ masterKey: id, problem: "expected 32 bytes as Base64" }))
}

const placeOf = ({ subject, tenant }: Subject): Uint8Array =>
  new TextEncoder().encode(`subject key ${JSON.stringify([tenant, subject])}`)

const refuse = (masterKey: string, { subject }: Subject, problem: MasterKeyRefused["problem"]) =>
  Effect.fail(new EventStoreError({ reason: new MasterKeyRefused({ masterKey, subject, problem }) }))
