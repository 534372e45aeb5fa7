/**
 * New event ids: UUIDs of version 7 (RFC 9562).
 *
 * @since 0.1.0
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Layer from "effect/Layer"

/** Bytes asked for at a time. */
const poolSize = 16_384

/**
 * Secure random bytes out of a pool: asking the system for sixteen bytes takes longer than all else that makes an id.
 * What was handed out is wiped from the pool.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerRandom: Layer.Layer<SecureRandom.SecureRandom> = Layer.sync(SecureRandom.SecureRandom, () => {
  const pool = new Uint8Array(poolSize)
  let used = poolSize
  return SecureRandom.make((size) => {
    if (size > poolSize) return globalThis.crypto.getRandomValues(new Uint8Array(size))
    if (used + size > poolSize) {
      globalThis.crypto.getRandomValues(pool)
      used = 0
    }
    const bytes = pool.slice(used, used + size)
    pool.fill(0, used, used + size)
    used += size
    return bytes
  })
})
