/**
 * What the event stores are asked to do.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type { BenchmarkError } from "../Suite.ts"
import type * as Workload from "./Workload.ts"

/**
 * An event store that appends to streams and reads them.
 *
 * @category models
 * @since 0.1.0
 */
export interface System {
  readonly name: string
  /** Appends to a stream that must have exactly `version` facts, or any number of them. */
  readonly append: (
    stream: string,
    version: number | "any",
    facts: ReadonlyArray<Workload.Data>
  ) => Effect.Effect<void, BenchmarkError>
  /** Reads a stream of this length from its beginning, decoded, and fails when a fact is missing or out of place. */
  readonly readStream: (stream: string, length: number) => Effect.Effect<void, BenchmarkError>
  /** The position of the last fact. */
  readonly head: Effect.Effect<bigint, BenchmarkError>
  /**
   * Of the facts after a position: how many there are, and how many of them do not have, as the nth of their stream, the
   * nth version. For facts of streams that begin after the position.
   */
  readonly audit: (after: bigint) => Effect.Effect<Audit, BenchmarkError>
}

/**
 * What an audit found.
 *
 * @category models
 * @since 0.1.0
 */
export interface Audit {
  readonly facts: number
  readonly misplaced: number
}
