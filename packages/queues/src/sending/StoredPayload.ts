/**
 * Where a payload is, when there is something to say of it.
 *
 * **Details**
 *
 * The place of a payload is text that says what it is, how large, and under which key the `PayloadStore` has it, as in
 * `json:20971520:17`. A large one that is in the row of its message has a place too, `row:20000:`. So claims know how much they take
 * without reading it. Nothing is said of what is small: its place is null.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { PayloadStore, PayloadStoreError } from "../PayloadStore.ts"

/**
 * A payload that is too large for a row: JSON text as UTF-8, or bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface LargePayload {
  readonly kind: "json" | "bytes"
  readonly content: Uint8Array
}

/**
 * What a message holds, as it was read.
 *
 * @category models
 * @since 0.1.0
 */
export interface Read {
  readonly data: unknown
  readonly bytes: Uint8Array | null
  /** The place of the payload. */
  readonly storedAt: string | null
}

type Store = PayloadStore["Service"]

/** Bytes that are worth counting: hundreds of smaller payloads are claimed together without a thought. */
const worthCounting = 16_384

/**
 * The place of a payload of so many characters or bytes that is in the row of its message.
 *
 * @category constructors
 * @since 0.1.0
 */
export const inRow = (size: number): string | null => size > worthCounting ? `row:${size}:` : null

/**
 * True for the place of a payload that is not in the row of its message.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isApart = (place: string | null): place is string => place !== null && !place.startsWith("row:")

/**
 * Stores a payload, and gives its place.
 *
 * @category constructors
 * @since 0.1.0
 */
export const put = (store: Store, { content, kind }: LargePayload): Effect.Effect<string, PayloadStoreError> =>
  Effect.map(store.put(content), (key) => `${kind}:${content.length}:${key}`)

/**
 * Removes payloads from the store, by their places.
 *
 * @category constructors
 * @since 0.1.0
 */
export const remove = (store: Store, places: ReadonlyArray<string>): Effect.Effect<void, PayloadStoreError> =>
  places.length === 0 ? Effect.void : store.remove(places.map((place) => parse(place).key))

/**
 * A payload that is stored elsewhere; none when it is not there, or not whole.
 *
 * @category constructors
 * @since 0.1.0
 */
export const get = (store: Store, place: string): Effect.Effect<Option.Option<LargePayload>, PayloadStoreError> => {
  const { key, kind, size } = parse(place)
  return Effect.map(
    store.get(key),
    Option.flatMap((content) => content.length === size ? Option.some({ kind, content }) : Option.none())
  )
}

/**
 * The same with its payload at hand: from then on it is like a small one that was in the row. One that cannot be had stays where
 * it is.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fetch = <A extends Read>(store: Store, read: A): Effect.Effect<A, PayloadStoreError> =>
  !isApart(read.storedAt)
    ? Effect.succeed(read.storedAt === null ? read : { ...read, storedAt: null })
    : Effect.map(get(store, read.storedAt), (found) => {
      if (Option.isNone(found)) return read
      const { content, kind } = found.value
      if (kind === "bytes") return { ...read, bytes: content, storedAt: null }
      const json = decodeJson(utf8.decode(content))
      return Result.isFailure(json) ? read : { ...read, data: json.success, storedAt: null }
    })

/**
 * What a message holds: JSON, or bytes; undefined when it is stored elsewhere and cannot be had.
 *
 * @category constructors
 * @since 0.1.0
 */
export const payloadOf = (store: Store, read: Read): Effect.Effect<unknown, PayloadStoreError> =>
  Effect.map(fetch(store, read), ({ bytes, data, storedAt }) => storedAt === null ? bytes ?? data : undefined)

/**
 * As many of these, from the first, as are no more than a page holds; one at least.
 *
 * @category getters
 * @since 0.1.0
 */
export const page = <A extends { readonly storedAt: string | null }>(all: ReadonlyArray<A>): ReadonlyArray<A> => {
  let size = 0
  for (const [index, { storedAt }] of all.entries()) {
    if (storedAt !== null) size += parse(storedAt).size
    if (index > 0 && size > pageSize) return all.slice(0, index)
  }
  return all
}

const pageSize = 67_108_864

const parse = (place: string): { readonly kind: LargePayload["kind"]; readonly size: number; readonly key: string } => {
  const [kind, size, ...key] = place.split(":")
  return { kind: kind === "bytes" ? "bytes" : "json", size: Number(size), key: key.join(":") }
}

const utf8 = new TextDecoder()

const decodeJson = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Unknown))
