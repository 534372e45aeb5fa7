/**
 * Parts of statements whose tables and columns are named by a value.
 *
 * @since 0.1.0
 */

/**
 * A name in quotes.
 *
 * @category formatting
 * @since 0.1.0
 */
export const identifier = (name: string): string => `"${name.replaceAll("\"", "\"\"")}"`

/**
 * Names in quotes, with commas.
 *
 * @category formatting
 * @since 0.1.0
 */
export const list = (names: ReadonlyArray<string>, prefix = ""): string =>
  names.map((name) => `${prefix}${identifier(name)}`).join(", ")

/**
 * Names with their types.
 *
 * @category formatting
 * @since 0.1.0
 */
export const columns = (fields: ReadonlyArray<{ readonly name: string; readonly type: string }>): string =>
  fields.map(({ name, type }) => `${identifier(name)} ${type}`).join(", ")
