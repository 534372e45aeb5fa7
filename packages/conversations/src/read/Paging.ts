/**
 * How many entries a page has.
 *
 * @since 0.1.0
 */

/**
 * 1 to 500, 50 when nothing is asked for. What lies outside is brought in.
 *
 * @category getters
 * @since 0.1.0
 */
export const pageLimit = (asked: number | undefined): number => Math.min(Math.max(Math.trunc(asked ?? 50), 1), 500)
