/**
 * The parts that are measured around a call that succeeds at once.
 *
 * @since 0.1.0
 */

/**
 * The parts, and all together.
 *
 * @category constants
 * @since 0.1.0
 */
export const all = ["bare", "retry", "breaker", "bulkhead", "time-out", "fallback", "full stack"] as const

/**
 * One of them.
 *
 * @category models
 * @since 0.1.0
 */
export type Part = (typeof all)[number]

/**
 * A part around calls of a peer. What a peer does not have is not there.
 *
 * @category models
 * @since 0.1.0
 */
export type PeerParts = Partial<Record<Part, () => Promise<unknown>>>

/**
 * The name of the work that is a call in this part.
 *
 * @category getters
 * @since 0.1.0
 */
export const workOf = (part: Part): string => `call, ${part}`
