/**
 * What a JSON body must be before it is read: text that decodes, and numbers that keep their digits.
 *
 * **Details**
 *
 * JSON is UTF-8 (RFC 8259), and a number of it is read as a 64-bit float. Reading either leniently would store something
 * else than what was sent: `12345678901234567890` would become `12345678901234567000`, `1e400` nothing at all. Fractions
 * are rounded as everywhere, to the float that is written the shortest.
 *
 * @since 0.1.0
 */
import type * as Problem from "@strata/http-api/Problem"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as HttpMethod from "effect/http/HttpMethod"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Iterable from "effect/Iterable"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { isUtf8 } from "node:buffer"
import * as Refusals from "./Refusals.ts"

/**
 * Refuses a request whose body would be stored as something else.
 *
 * @category guards
 * @since 0.1.0
 */
export const refuseLossy = Effect.gen(function*() {
  const request = yield* HttpServerRequest.HttpServerRequest
  if (!isJson(request)) return
  const bytes = Buffer.from(yield* request.arrayBuffer)
  if (!isUtf8(bytes)) return yield* Refusals.mistake("body", "Expected UTF-8")
  if (!mayLoseDigits(bytes.toString("latin1"))) return
  const lossy = lossyNumbers(yield* request.text)
  if (Arr.isReadonlyArrayNonEmpty(lossy)) return yield* Refusals.mistakes(lossy)
})

/** As the endpoints see it: a body without a type is JSON. */
const isJson = ({ headers, method }: HttpServerRequest.HttpServerRequest): boolean =>
  HttpMethod.hasBody(method) && /^\s*application\/json/i.test(headers["content-type"] ?? "application/json")

/** Numbers of 16 digits, or with an exponent of three, and texts that look alike, where a number may begin. */
const largeNumbers = /[:,[\s](-?(?:\d{16,}[\d.eE+-]*|\d[\d.]*[eE]\+?\d{3,}))/g

const mayLoseDigits = (text: string): boolean =>
  Iterable.some(text.matchAll(largeNumbers), ([, number]) => !keepsDigits(number!))

/** True of an integer that is written back as it is, and of any other number that does not overflow. */
const keepsDigits = (source: string): boolean => {
  const value = Number(source)
  return Number.isFinite(value) && (/[.eE]/.test(source) || String(value) === source)
}

const parse = Schema.decodeOption(Schema.fromJsonString(Schema.Unknown, {
  reviver: (_name, value: unknown, context?: { readonly source?: string }) =>
    Predicate.isNumber(value) && !keepsDigits(context?.source ?? String(value)) ? Number.NaN : value
}))

/** Where they are. What is not JSON has none. */
const lossyNumbers = (text: string): ReadonlyArray<Problem.FieldError> => {
  const found: Array<Problem.FieldError> = []
  const pending: Array<readonly [value: unknown, path: string]> = [[Option.getOrUndefined(parse(text)), "body"]]
  for (const [value, path] of pending) {
    if (Number.isNaN(value)) found.push({ path, message: "The number would lose digits: send it as a string" })
    if (!Predicate.isObjectOrArray(value)) continue
    for (const [key, member] of Object.entries(value)) {
      pending.push([member, Array.isArray(value) ? `${path}[${key}]` : `${path}.${key}`])
    }
  }
  return found
}
