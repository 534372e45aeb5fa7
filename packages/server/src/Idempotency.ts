/**
 * Idempotency keys over HTTP: the first answer is kept in the statement that stores the facts, and given again.
 *
 * **Details**
 *
 * The record holds a fingerprint of the request (method, path, caller and body) and the part of the answer that is made
 * before the append; the position is the record's own. So a server killed between the commit and the answer still
 * gives the first answer when it is asked again. A write that led to no fact keeps nothing and is decided anew. Revisions
 * and what is said of streams keep no record: the ids of their facts stand for their keys, see `KeyedEventId`.
 *
 * @since 0.1.0
 */
import { EventStore, type IdempotencyRecord } from "@strata/event-store/EventStore"
import type * as Fact from "@strata/event-store/Fact"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import { RuleViolated } from "@strata/http-api/Problem"
import * as Digest from "effect/crypto/Digest"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as KeyedEventId from "./KeyedEventId.ts"

/**
 * A write that may carry a key.
 *
 * @category models
 * @since 0.1.0
 */
export interface Write<Kept, A, E, R> {
  readonly key: string | undefined
  /** Reads the part of the answer that is kept. */
  readonly kept: Schema.Decoder<Kept>
  /** Carries it out, given what makes the record; without a key there is none to make. Is not interrupted. */
  readonly run: (record: ((kept: Schema.Json) => IdempotencyRecord) | undefined) => Effect.Effect<A, E, R>
  /** The first answer. */
  readonly replay: (kept: Kept, position: Fact.Position) => A
}

/**
 * The refusal of another request under a key that was used.
 *
 * @category constructors
 * @since 0.1.0
 */
export const keyReused = (key: string): RuleViolated =>
  new RuleViolated({
    rule: "IdempotencyKeyReused",
    detail: `The idempotency key ${key} was used for another request`
  })

/**
 * Makes the function that carries writes out once per key.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const store = yield* EventStore
  const eventIdOf = yield* KeyedEventId.make
  const { digestHex } = yield* Digest.Digest

  const fingerprint = Effect.gen(function*() {
    const request = yield* HttpServerRequest.HttpServerRequest
    const principal = yield* CurrentPrincipal
    const body = yield* Effect.orDie(request.text)
    // Each part stands behind its length, so that no two requests run together into the same text.
    const text = [request.method, request.url, principal.tenant, principal.subject, body]
      .map((part) => `${part.length}:${part}`).join("")
    return yield* digestHex(Digest.sha256, new TextEncoder().encode(text))
  })

  return Effect.fnUntraced(function*<Kept, A, E, R>(write: Write<Kept, A, E, R>) {
    const { key } = write
    if (key === undefined) return yield* Effect.uninterruptible(write.run(undefined))
    const print = yield* fingerprint
    const decode = Schema.decodeUnknownEffect(write.kept)

    const { tenant } = yield* CurrentPrincipal
    const first = Effect.gen(function*() {
      const record = yield* store.idempotencyRecord(key).pipe(Effect.orDie)
      if (Option.isNone(record)) {
        const revision = yield* Effect.flatMap(eventIdOf(tenant, key), store.get).pipe(Effect.orDie)
        return Option.isSome(revision) ? yield* keyReused(key) : Option.none<A>()
      }
      if (record.value.fingerprint !== print) return yield* keyReused(key)
      const kept = yield* Effect.orDie(decode(record.value.answer))
      return Option.some(write.replay(kept, record.value.position))
    })

    const before = yield* first
    if (Option.isSome(before)) return before.value
    // A request with the same key may have been faster: whatever this one fails with, its answer counts.
    return yield* Effect.uninterruptible(write.run((answer) => ({ key, fingerprint: print, answer }))).pipe(
      Effect.catch((error) =>
        Effect.flatMap(
          first,
          Option.match({ onNone: () => Effect.fail(error), onSome: (answer) => Effect.succeed(answer) })
        )
      )
    )
  })
})
