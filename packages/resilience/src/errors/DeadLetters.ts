/**
 * Where work goes that failed for good: put aside with all that is known of its failure, until somebody looks at it.
 *
 * **When to use**
 *
 * `ErrorStrategy.handle` offers letters to this service. Give it a sink that outlives the process; whoever claims work from
 * a table puts the letter into the transaction that ends the claim.
 *
 * **Details**
 *
 * A letter that was not kept is an error, and then the work is not done: who acknowledged it would lose it.
 *
 * **Example** (What a letter says)
 *
 * ```ts import.meta.vitest
 * import * as Timestamp from "@strata/postgres/Timestamp"
 * import * as DeadLetters from "@strata/resilience/errors/DeadLetters"
 * import * as FailureClass from "@strata/resilience/retry/FailureClass"
 * import * as Cause from "effect/Cause"
 *
 * const at = Timestamp.fromMillis(0)
 * const letter = DeadLetters.make({
 *   handler: "billing",
 *   id: "42",
 *   payload: { amount: 3 },
 *   cause: Cause.fail("card 4711 refused"),
 *   failure: FailureClass.permanent,
 *   reason: "permanent",
 *   attempts: 1,
 *   firstAt: at,
 *   failedAt: at
 * })
 * letter.fingerprint // => "string: card # refused"
 * ```
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as FailureClass from "../retry/FailureClass.ts"
import * as PoisonDetection from "./PoisonDetection.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * A dead letter.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetter {
  readonly handler: string
  /** Of the work, so that it can be given to the handler again. */
  readonly id: string
  /** What the handler was given, as it was. */
  readonly payload: unknown
  readonly failureClass: FailureClass.FailureClass["_tag"]
  /** Why it is here. */
  readonly reason: string
  /** All that went wrong, at most `maxErrorLength` long. */
  readonly error: string
  /** What letters that are here for the same thing share. */
  readonly fingerprint: string
  readonly attempts: number
  readonly firstAt: Timestamp.Timestamp
  readonly failedAt: Timestamp.Timestamp
}

/**
 * The sink did not keep a letter, so the work is not done: give it to the handler again.
 *
 * @category errors
 * @since 0.1.0
 */
export class DeadLetterNotKept
  extends Schema.TaggedError<DeadLetterNotKept>("@strata/resilience/DeadLetters/DeadLetterNotKept")(
    "DeadLetterNotKept",
    { handler: Schema.String, id: Schema.String, problem: Schema.String, cause: Schema.optionalKey(Schema.Defect()) }
  )
{
  override get message(): string {
    return `The dead letter of "${this.id}" from handler "${this.handler}" could not be kept: ${this.problem}. ` +
      "The work is not done: give it to the handler again"
  }
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * The longest error text of a letter.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxErrorLength = 8192

/**
 * The letter of work that failed with a cause.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  { cause, failure, ...known }: Omit<DeadLetter, "failureClass" | "error" | "fingerprint"> & {
    readonly cause: Cause.Cause<unknown>
    readonly failure: FailureClass.FailureClass
  }
): DeadLetter => ({
  ...known,
  failureClass: failure._tag,
  error: Cause.pretty(cause).slice(0, maxErrorLength),
  fingerprint: PoisonDetection.fingerprint(cause)
})

// -------------------------------------------------------------------------------------------------------- service

/**
 * Takes dead letters.
 *
 * @category services
 * @since 0.1.0
 */
export class DeadLetters extends Context.Service<DeadLetters, {
  /** Succeeds when the letter will still be there after a crash. */
  readonly offer: (letter: DeadLetter) => Effect.Effect<void, DeadLetterNotKept>
}>()("@strata/resilience/errors/DeadLetters") {}

/**
 * The letters that `layerMemory` keeps.
 *
 * @category services
 * @since 0.1.0
 */
export class Memory extends Context.Service<Memory, {
  /** The oldest first. */
  readonly letters: Effect.Effect<ReadonlyArray<DeadLetter>>
}>()("@strata/resilience/DeadLetters/Memory") {}

/**
 * Keeps letters in the process, for tests.
 *
 * **Details**
 *
 * - `capacity` (1000): a letter beyond it is not kept.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (
  options: { readonly capacity?: number | undefined } = {}
): Layer.Layer<DeadLetters | Memory> =>
  Layer.effectContext(Effect.sync(() => {
    const capacity = options.capacity ?? 1000
    const kept: Array<DeadLetter> = []
    return Context.make(Memory, Memory.of({ letters: Effect.sync(() => kept.slice()) })).pipe(
      Context.add(DeadLetters, {
        offer: (letter) =>
          Effect.suspend(() => {
            if (kept.length >= capacity) {
              const { handler, id } = letter
              return Effect.fail(new DeadLetterNotKept({ handler, id, problem: `there are ${capacity} already` }))
            }
            kept.push(letter)
            return Effect.void
          })
      })
    )
  }))
