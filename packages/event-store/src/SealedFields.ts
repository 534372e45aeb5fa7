/**
 * Fields of a fact's data, sealed under the keys of their subjects.
 *
 * **Details**
 *
 * In the place of a sealed field stands an envelope: the subject's digest, the number of its key, a nonce and the ciphertext
 * with its tag, both as Base64. `$personal` lists the fields that are sealed, so whoever reads need not look for them.
 *
 * Authenticated with it are tenant, stream, event id, field, subject and key, so that an envelope opens nowhere but where it was
 * made. The event id is that of the first fact of the chain: a revision that leaves the data as it was holds a copy of it.
 *
 * The nonce is the beginning of an HMAC-SHA256, under a key of its own, of all that and the plain text. So what is sent
 * again is sealed the same and is known for what was stored; and two different texts have the same nonce no more likely than
 * two random ones: below 2^-32 for 2^32 fields of one subject (NIST SP 800-38D, 8.2.2 and 8.3). Who sees two equal envelopes
 * learns that one field of one fact was said twice.
 *
 * Source: Rogaway and Shrimpton, *Deterministic Authenticated-Encryption* (2006), for a nonce made from the message.
 *
 * @since 0.1.0
 */
import * as Aead from "effect/crypto/Aead"
import * as Mac from "effect/crypto/Mac"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import { cast } from "effect/Function"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { EventStoreError, InvalidAppend } from "./EventStore.ts"
import type { EventId, Fact, StreamId } from "./Fact.ts"
import * as Fields from "./Fields.ts"
import type { Subject } from "./MasterKeys.ts"
import { type Erased, erasedType, type PersonalFields, SealBroken } from "./PersonalData.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * The field of a fact's data that lists which of the others are sealed. Nobody but the store writes it.
 *
 * @category constants
 * @since 0.1.0
 */
export const marker = "$personal"

/**
 * What stands in the place of a sealed field.
 *
 * @category models
 * @since 0.1.0
 */
export const Envelope = Schema.Struct({
  subject: Schema.String,
  key: Schema.Int,
  nonce: Schema.String,
  sealed: Schema.String
})
export type Envelope = typeof Envelope.Type

/**
 * The key of a subject, ready to use.
 *
 * @category models
 * @since 0.1.0
 */
export interface SealKey {
  readonly seal: Aead.Key
  readonly nonce: Mac.Key
}

/**
 * What is to be sealed: fields of the data of a fact. `path` names the data in errors.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sealable {
  readonly path: string
  readonly stream: StreamId
  /** Of the first fact of the chain. */
  readonly eventId: EventId
  readonly data: Schema.Json
  readonly personal: ReadonlyArray<PersonalFields>
}

/**
 * A key that is held for a subject: its number, and the digest it is kept under.
 *
 * @category models
 * @since 0.1.0
 */
export interface HeldKey extends Pick<Subject, "subject"> {
  readonly key: number
  readonly sealKey: SealKey
}

/**
 * Fields of a fact that are sealed.
 *
 * @category models
 * @since 0.1.0
 */
export interface SealedFact {
  readonly fact: Fact
  readonly envelopes: ReadonlyArray<readonly [field: string, envelope: Envelope]>
}

/** Data with named fields. */
type Data = { readonly [field: string]: Schema.Json }

// --------------------------------------------------------------------------------------------------------- checks

/**
 * What is wrong with the personal fields that a fact or a correction names, or with data that says by itself that it is sealed.
 *
 * @category predicates
 * @since 0.1.0
 */
export const findProblem = (
  data: Schema.Json | undefined,
  personal: ReadonlyArray<PersonalFields> | undefined,
  within?: string
): Fields.Problem | undefined => {
  if (isData(data) && Object.hasOwn(data, marker)) {
    return { path: within === undefined ? "data" : `${within}.data`, message: `only the store writes ${marker}` }
  }
  return personal === undefined
    ? undefined
    : findClaimProblem(data, personal, within === undefined ? "personal" : `${within}.personal`)
}

const findClaimProblem = (
  data: Schema.Json | undefined,
  personal: ReadonlyArray<PersonalFields>,
  path: string
): Fields.Problem | undefined => {
  if (!Array.isArray(personal)) return { path, message: "expected an array" }
  if (personal.length > maxSubjects) return { path, message: `more than ${maxSubjects} subjects in one fact` }
  const seen = new Set<string>()
  for (const [index, { fields, subject }] of personal.entries()) {
    if (!Fields.isLabel(subject)) return { path: `${path}[${index}].subject`, message: Fields.labelExpected }
    if (!Array.isArray(fields)) return { path: `${path}[${index}].fields`, message: "expected an array" }
    for (const field of fields) {
      const problem = !isData(data) || !Object.hasOwn(data, field) || data[field] === undefined
        ? "the data has no such field"
        : seen.has(field)
        ? "the same field twice"
        : undefined
      if (problem !== undefined) return { path: `${path}[${index}].fields`, message: `${field}: ${problem}` }
      seen.add(field)
    }
  }
  return undefined
}

/** Subjects of one fact. */
const maxSubjects = 16

const isData = (data: Schema.Json | undefined): data is Data =>
  typeof data === "object" && data !== null && !Array.isArray(data)

/**
 * True of a fact of which fields are sealed.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isSealed = ({ data }: Pick<Fact, "data">): boolean => isData(data) && data[marker] !== undefined

/**
 * True of a fact that concerns the keys of those who read it: what it holds is sealed, or it tells of an erasure.
 *
 * @category predicates
 * @since 0.1.0
 */
export const concernsKeys = (fact: Fact): boolean => isSealed(fact) || fact.type === erasedType

/**
 * True when data that was sealed for a request stands for what is stored, though the subject of some field was erased in between:
 * all that is left of the stored data agrees. A newer key has a higher number, and no subject has two.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isSameButErased = (data: unknown, stored: Schema.Json, same: (a: unknown, b: unknown) => boolean) => {
  const asked = cast<unknown, Schema.Json>(data)
  if (!isData(asked) || !isData(stored) || !same(asked[marker], stored[marker])) return false
  const names = new Set([...Object.keys(asked), ...Object.keys(stored)])
  const sealed = new Set(Array.isArray(asked[marker]) ? asked[marker] : [])
  return [...names].every((name) =>
    same(asked[name], stored[name]) || sealed.has(name) && isNewer(asked[name], stored[name])
  )
}

const isNewer = (asked: Schema.Json | undefined, stored: Schema.Json | undefined): boolean =>
  isEnvelope(asked) && isEnvelope(stored) && asked.subject === stored.subject && asked.key > stored.key

const isEnvelope = Schema.is(Envelope)

/**
 * The sealed fields of a fact.
 *
 * @category conversions
 * @since 0.1.0
 */
export const envelopesOf = (fact: Fact): Result.Result<SealedFact, EventStoreError> => {
  const { data } = fact
  if (!isData(data)) return Result.succeed({ fact, envelopes: [] })
  const fields = data[marker]
  if (!Array.isArray(fields)) return Result.fail(broken(fact, marker, "malformed"))
  const envelopes: Array<readonly [string, Envelope]> = []
  for (const field of fields) {
    const envelope = typeof field === "string" ? data[field] : undefined
    if (!isEnvelope(envelope)) return Result.fail(broken(fact, String(field), "malformed"))
    envelopes.push([field, envelope])
  }
  return Result.succeed({ fact, envelopes })
}

// ----------------------------------------------------------------------------------------------- sealing and opening

/**
 * Seals and opens with keys that are at hand.
 *
 * @category models
 * @since 0.1.0
 */
export interface SealedFields {
  /** Makes the keys to seal with out of a subject's key. */
  readonly derive: (key: Uint8Array) => Effect.Effect<SealKey>
  /** The data with its personal fields sealed. `held` has the keys of `personal`, in its order. */
  readonly seal: (
    tenant: string,
    sealable: Sealable,
    held: ReadonlyArray<HeldKey>
  ) => Effect.Effect<Schema.Json, EventStoreError>
  /** The fact as it was before. `keyOf` has the keys of its envelopes. */
  readonly open: (
    sealed: SealedFact,
    keyOf: (tenant: string, envelope: Envelope) => SealKey | "erased" | "missing"
  ) => Effect.Effect<Fact, EventStoreError>
}

/**
 * By the cryptography in scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<SealedFields, never, Aead.Aead | Mac.Mac> = Effect.gen(function*() {
  const aead = yield* Aead.Aead
  const mac = yield* Mac.Mac

  const sealField = (place: string, text: string, { key, sealKey, subject }: HeldKey) =>
    Effect.flatMap(mac.sign(sealKey.nonce, utf8(place + text)), (tag) => {
      const nonce = tag.slice(0, Aead.aes256Gcm.nonceLength)
      return Effect.map(
        aead.encrypt(sealKey.seal, utf8(text), { nonce, aad: utf8(place) }),
        (sealed): Envelope => ({ subject, key, nonce: base64(nonce), sealed: base64(sealed) })
      )
    })

  const openField = (fact: Fact, field: string, envelope: Envelope, { seal }: SealKey) => {
    const nonce = Base64.decode(envelope.nonce)
    const sealed = Base64.decode(envelope.sealed)
    if (Result.isFailure(nonce) || Result.isFailure(sealed)) return Effect.fail(broken(fact, field, "malformed"))
    const aad = utf8(placeOf(fact.tenant, fact.stream, fact.revises ?? fact.eventId, field, envelope))
    return Effect.mapBoth(aead.decrypt(seal, sealed.success, { nonce: nonce.success, aad }), {
      onFailure: () => broken(fact, field, "does not open"),
      onSuccess: (text) => cast<unknown, Schema.Json>(parse(utf8Text.decode(text)))
    })
  }

  return {
    derive: Effect.fnUntraced(function*(key) {
      const root = yield* Mac.key(Mac.hmacSha256, key)
      return {
        seal: yield* Aead.key(Aead.aes256Gcm, yield* mac.sign(root, utf8("seal"))),
        nonce: yield* Mac.key(Mac.hmacSha256, yield* mac.sign(root, utf8("nonce")))
      }
    }, Effect.orDie),
    seal: (tenant, { data, eventId, path, personal, stream }, held) =>
      Effect.suspend(() => {
        const sealed: Record<string, Schema.Json> = { ...(isData(data) ? data : {}) }
        const parts: Array<readonly [field: string, text: string, held: HeldKey]> = []
        for (const [index, { fields }] of personal.entries()) {
          for (const field of fields) {
            const text = textOf(sealed[field], `${path}.${field}`)
            if (Result.isFailure(text)) return invalid(text.failure)
            parts.push([field, text.success, held[index]!])
          }
        }
        let next = 0
        const body = () => {
          const [field, text, held] = parts[next]!
          return sealField(placeOf(tenant, stream, eventId, field, held), text, held)
        }
        const step = (envelope: Envelope) => {
          sealed[parts[next++]![0]] = envelope
        }
        return Effect.map(
          Effect.orDie(Effect.whileLoop({ while: () => next < parts.length, body, step })),
          () => parts.length === 0 ? sealed : { ...sealed, [marker]: parts.map(([field]) => field).toSorted() }
        )
      }),
    open: ({ envelopes, fact }, keyOf) =>
      Effect.suspend(() => {
        const { [marker]: _, ...data } = cast<Schema.Json, Record<string, Schema.Json>>(fact.data)
        let next = 0
        const body = (): Effect.Effect<Schema.Json, EventStoreError> => {
          const [field, envelope] = envelopes[next]!
          const key = keyOf(fact.tenant, envelope)
          return key === "missing"
            ? Effect.fail(broken(fact, field, "no key"))
            : key === "erased"
            ? Effect.succeed(erased(envelope.subject))
            : openField(fact, field, envelope, key)
        }
        const step = (value: Schema.Json) => {
          data[envelopes[next++]![0]] = value
        }
        return Effect.as(Effect.whileLoop({ while: () => next < envelopes.length, body, step }), { ...fact, data })
      })
  }
})

const erased = (subject: string): Erased => ({ _tag: "Erased", subject })

/** Of two different places neither's text begins with the other's: each ends where its array does. */
const placeOf = (
  tenant: string,
  stream: string,
  eventId: string,
  field: string,
  of: Pick<Envelope, "subject" | "key">
) => JSON.stringify([tenant, stream, eventId, field, of.subject, of.key])

/** A value as JSON, with keys in order: the same value is the same text. */
const textOf = (value: Schema.Json | undefined, path: string): Result.Result<string, Fields.Problem> =>
  Result.map(
    Fields.toJson(value, path),
    (text) => typeof value === "object" && value !== null ? JSON.stringify(value, inOrder) : text
  )

const inOrder = (_key: string, value: unknown): unknown =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => a < b ? -1 : a > b ? 1 : 0))
    : value

/** As one piece of text: `Base64.encode` leaves one of many, which the JSON of the fact would put together at ten times the cost. */
const base64 = ({ buffer, byteLength, byteOffset }: Uint8Array): string =>
  Buffer.from(buffer, byteOffset, byteLength).toString("base64")

/** In half the time that a `TextEncoder` takes for texts as short as these. */
const utf8 = (text: string): Uint8Array => Buffer.from(text)
const utf8Text = new TextDecoder()
const parse = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Unknown))

const invalid = (problem: Fields.Problem) => Effect.fail(new EventStoreError({ reason: new InvalidAppend(problem) }))

const broken = ({ eventId, position }: Fact, field: string, problem: SealBroken["problem"]) =>
  new EventStoreError({ reason: new SealBroken({ eventId, position, field, problem }) })
