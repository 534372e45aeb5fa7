/**
 * The cryptography of personal data, as the services of effect, on the runtime's own synchronous code.
 *
 * **Details**
 *
 * A field holds a few hundred bytes. `crypto.subtle` hands each call to another thread and back, which takes longer than
 * all the work on them.
 *
 * @since 0.1.0
 */
import * as Aead from "effect/crypto/Aead"
import * as Mac from "effect/crypto/Mac"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as NodeCrypto from "node:crypto"

const tagLength = 16

/** Keys as the runtime wants them. Made anew for each call, they take longer than the call. */
const keys = new WeakMap<Uint8Array, NodeCrypto.KeyObject>()

const keyOf = (bytes: Uint8Array): NodeCrypto.KeyObject => {
  const known = keys.get(bytes)
  if (known !== undefined) return known
  const key = NodeCrypto.createSecretKey(bytes)
  keys.set(bytes, key)
  return key
}

const aes256Gcm: Aead.Implementation = {
  encrypt: (key, nonce, plaintext, aad) => {
    const cipher = NodeCrypto.createCipheriv("aes-256-gcm", keyOf(key), nonce)
    cipher.setAAD(aad)
    return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()])
  },
  decrypt: (key, nonce, ciphertext, aad) => {
    const decipher = NodeCrypto.createDecipheriv("aes-256-gcm", keyOf(key), nonce, { authTagLength: tagLength })
    decipher.setAAD(aad)
    decipher.setAuthTag(ciphertext.subarray(-tagLength))
    const plaintext = decipher.update(ciphertext.subarray(0, -tagLength))
    // Throws where the tag does not match, and then only.
    return Result.isSuccess(Result.try(() => decipher.final())) ? plaintext : undefined
  }
}

const hmac = (hash: string, key: Uint8Array, data: Uint8Array): Uint8Array =>
  NodeCrypto.createHmac(hash.replace("-", ""), keyOf(key)).update(data).digest()

/**
 * What seals and opens.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Aead.Aead | Mac.Mac | SecureRandom.SecureRandom> = Layer.mergeAll(
  Aead.layerWebCryptoWith({ implementations: { aes256Gcm } }),
  Mac.layerWebCryptoWith({ hmac })
).pipe(Layer.provideMerge(SecureRandom.layerWebCrypto))

/**
 * How a subject is named wherever it is kept: 128 bits of SHA-256 over tenant and subject, as 32 hexadecimal digits. So the same
 * subject has another one with each tenant. It hides who that is as far as nobody can guess it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const digestOf = (tenant: string, subject: string): string =>
  NodeCrypto.hash("sha256", JSON.stringify([tenant, subject]), "hex").slice(0, 32)
