/**
 * The beginning of a message, for lists and notifications.
 *
 * @since 0.1.0
 */

/** Characters of UTF-16. */
const length = 200

/**
 * The first 200 characters; never ends between the halves of a surrogate pair.
 *
 * @category getters
 * @since 0.1.0
 */
export const preview = (content: string): string => {
  const start = content.slice(0, length)
  return start.isWellFormed() ? start : start.slice(0, -1)
}
