/**
 * Event ids that stand for idempotency keys: the store itself tells a repeated request from a new one, also after a crash
 * between the commit and the answer.
 *
 * @since 0.1.0
 */
import { EventId } from "@strata/event-store/Fact"
import * as Digest from "effect/crypto/Digest"
import * as Effect from "effect/Effect"

/**
 * Makes the function that derives the id of a tenant's key: a UUID of version 8 (RFC 9562), 122 bits of a hash.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const { digestHex } = yield* Digest.Digest
  return Effect.fnUntraced(function*(tenant: string, key: string) {
    const text = `idempotency key ${tenant.length}:${tenant}${key}`
    const hex = yield* digestHex(Digest.sha256, new TextEncoder().encode(text))
    const variant = "89ab"[Number.parseInt(hex.slice(16, 17), 16) % 4]
    return EventId.make(
      [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `${variant}${hex.slice(17, 20)}`, hex.slice(20, 32)]
        .join("-")
    )
  })
})
