/**
 * Finds the piece of work that will never succeed, before it takes the worker down a fourth time.
 *
 * **When to use**
 *
 * Keep a `History` with each message, job or parked fact. Ask `detect` before an attempt is begun and after each failure,
 * and put aside what it names.
 *
 * **Details**
 *
 * Two things tell:
 *
 * - *attempts*: so many began and none succeeded. An attempt counts where it begins, in the statement that claims the
 *   work, so one that ends its process counts too. What was no fault of the work is taken back: a failure that says only
 *   something of a destination, an interruption, a refusal before anything was begun;
 * - *the same failure*: so many times in a row, by its `fingerprint`.
 *
 * The functions here are pure, and a history is three columns wide.
 *
 * **Gotchas**
 *
 * A history is counted before its answer is known: who forgets to write down `failed` or `released` leaves an attempt
 * standing, and the work is put aside too soon rather than never.
 *
 * **Example** (Put aside at the fourth claim, whatever became of the process)
 *
 * ```ts import.meta.vitest
 * import { pipe } from "effect/Function"
 * import * as PoisonDetection from "@strata/resilience/errors/PoisonDetection"
 *
 * const { claimed, detect, fresh, standard } = PoisonDetection
 * const crashed = pipe(fresh, claimed, claimed, claimed)
 * detect(standard, crashed)?._tag // => "TooManyAttempts"
 * detect(standard, PoisonDetection.released(crashed)) // => undefined
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Hash from "effect/Hash"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as FailureClass from "../retry/FailureClass.ts"

// ---------------------------------------------------------------------------------------------------------- model

const Count = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 })))
const count = (value: number) => Count.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(value)))

/**
 * When work is poison.
 *
 * - `attempts` (3): so many attempts that did not succeed.
 * - `sameFailure` (3): so many failures in a row with one fingerprint.
 *
 * @category schemas
 * @since 0.1.0
 */
export const PoisonDetection = Schema.Struct({ attempts: count(3), sameFailure: count(3) })

/**
 * @category models
 * @since 0.1.0
 */
export type PoisonDetection = typeof PoisonDetection.Type

/**
 * Rules with the defaults for what is not said. Throws on nonsense, so build them where the program starts.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options: typeof PoisonDetection.Encoded) => PoisonDetection = Schema.decodeSync(PoisonDetection)

/**
 * The rules without any option.
 *
 * @category constants
 * @since 0.1.0
 */
export const standard: PoisonDetection = make({})

/**
 * What is kept with a piece of work.
 *
 * @category schemas
 * @since 0.1.0
 */
export const History = Schema.Struct({
  /** Attempts that began, did not succeed, and were not taken back. */
  attempts: Schema.Int,
  /** Of the last failure that counts. */
  fingerprint: Schema.UndefinedOr(Schema.String),
  /** How many failures in a row had that fingerprint. */
  repeats: Schema.Int
})

/**
 * @category models
 * @since 0.1.0
 */
export type History = typeof History.Type

/**
 * Why work is poison.
 *
 * @category models
 * @since 0.1.0
 */
export type Poison =
  | { readonly _tag: "TooManyAttempts"; readonly attempts: number }
  | { readonly _tag: "SameFailure"; readonly fingerprint: string; readonly times: number }

// -------------------------------------------------------------------------------------------------------- history

/**
 * Nothing was tried yet.
 *
 * @category constants
 * @since 0.1.0
 */
export const fresh: History = { attempts: 0, fingerprint: undefined, repeats: 0 }

/**
 * An attempt begins.
 *
 * @category transitions
 * @since 0.1.0
 */
export const claimed = (history: History): History => ({ ...history, attempts: history.attempts + 1 })

/**
 * The attempt was interrupted, or refused before anything was begun: it is as if it had not been claimed.
 *
 * @category transitions
 * @since 0.1.0
 */
export const released = (history: History): History => ({ ...history, attempts: Math.max(0, history.attempts - 1) })

/**
 * The attempt failed. A failure that is transient or throttled says something of a destination and nothing of the work:
 * the attempt is taken back, and a row of equal failures is neither longer nor broken.
 *
 * @category transitions
 * @since 0.1.0
 */
export const failed = (
  history: History,
  { failure, fingerprint }: { readonly failure: FailureClass.FailureClass; readonly fingerprint: string }
): History => {
  if (failure._tag === "Transient" || failure._tag === "Throttled") return released(history)
  return { ...history, fingerprint, repeats: history.fingerprint === fingerprint ? history.repeats + 1 : 1 }
}

/**
 * Why the work is to be put aside; `undefined` when it may be tried. Ask before an attempt is claimed, and after one
 * failed.
 *
 * @category getters
 * @since 0.1.0
 */
export const detect = (
  rules: PoisonDetection,
  { attempts, fingerprint, repeats }: History
): Poison | undefined => {
  if (fingerprint !== undefined && repeats >= rules.sameFailure) {
    return { _tag: "SameFailure", fingerprint, times: repeats }
  }
  return attempts >= rules.attempts ? { _tag: "TooManyAttempts", attempts } : undefined
}

/**
 * In words, why work is poison.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (poison: Poison): string =>
  poison._tag === "TooManyAttempts"
    ? `poison: ${poison.attempts} attempts began and none succeeded`
    : `poison: failed ${poison.times} times in a row with ${poison.fingerprint}`

// ---------------------------------------------------------------------------------------------------- fingerprint

/**
 * The longest fingerprint.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxLength = 240

/**
 * What stays the same when the same thing goes wrong again: the tags of the error, its message without what differs from
 * one time to the next, and where it was made. A defect counts before an error.
 *
 * **Details**
 *
 * Left out of the message is all that stands in quotes, that has a digit or an `@`, or that is long and hexadecimal. The
 * place is the name of the function and its file, without the line, so that it outlives the next release. A fingerprint
 * that had to be cut ends with a hash of the whole.
 *
 * @category getters
 * @since 0.1.0
 */
export const fingerprint = (cause: Cause.Cause<unknown>): string => {
  const reason = cause.reasons.find(Cause.isDieReason) ?? cause.reasons.find(Cause.isFailReason)
  if (reason === undefined) return "interrupted"
  const error = Cause.isDieReason(reason) ? reason.defect : reason.error
  const [message, frame] = [mask(messageOf(error)), frameOf(error)]
  const whole = `${tagsOf(error)}${message === "" ? "" : `: ${message}`}${frame === "" ? "" : ` @ ${frame}`}`
  if (whole.length <= maxLength) return whole
  const hash = `~${(Hash.string(whole) >>> 0).toString(36)}`
  return whole.slice(0, maxLength - hash.length) + hash
}

/** Wrappers of wrappers exist; cycles may. */
const maxDepth = 4

/** Longer messages are as good as their beginning. */
const longestMessage = 2000

const insideOf = (error: unknown): unknown => {
  if (Predicate.hasProperty(error, "reason") && Predicate.isObject(error.reason)) return error.reason
  return Predicate.hasProperty(error, "cause") ? error.cause : undefined
}

const tagOf = (error: unknown): string => {
  if (Predicate.hasProperty(error, "_tag") && Predicate.isString(error._tag)) return error._tag
  return error instanceof Error ? error.name : typeof error
}

const tagsOf = (error: unknown): string => {
  const tags: Array<string> = []
  for (let current = error; tags.length < maxDepth && current !== undefined; current = insideOf(current)) {
    tags.push(tagOf(current))
  }
  return tags.length === 0 ? "undefined" : tags.join("/")
}

/** Of the outermost that has one. */
const messageOf = (error: unknown): string => {
  let current = error
  for (let depth = 0; depth < maxDepth && current !== undefined; depth++) {
    if (Predicate.isString(current)) return current
    if (Predicate.hasProperty(current, "message") && Predicate.isString(current.message) && current.message !== "") {
      return current.message
    }
    current = insideOf(current)
  }
  return ""
}

const mask = (message: string): string =>
  message
    .slice(0, longestMessage)
    .replace(/"[^"]*"|`[^`]*`|(?<!\w)'[^']*'(?!\w)/g, "…")
    .replace(/[^\s,;:()[\]{}<>=/"'`]+/g, (word) => (/[\d@]|^[0-9a-f]{8,}$/i.test(word) ? "#" : word))
    .replace(/\s+/g, " ")
    .trim()

/** The first frame of the program's own code, or else the first one. */
const frameOf = (error: unknown): string => {
  if (!Predicate.hasProperty(error, "stack") || !Predicate.isString(error.stack)) return ""
  const frames = error.stack.split("\n").filter((line) => /^\s+at /.test(line))
  const own = frames.find((line) => !/node_modules|node:|\(native\)/.test(line)) ?? frames[0]
  return own === undefined ? "" : placeOf(own)
}

/** `name (file)` of a line as `at name (/path/to/file.ts:12:34)` or `at file:///path/to/file.ts:12:34`. */
const placeOf = (line: string): string => {
  const match = /^\s+at (?:(.*) \()?(.*?)(?::\d+)*\)?$/.exec(line)
  if (match === null) return ""
  const [, name, path = ""] = match
  const file = path.slice(path.lastIndexOf("/") + 1).replace(/\?.*$/, "")
  return name === undefined ? file : `${name} (${file})`
}
