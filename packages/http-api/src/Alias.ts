/**
 * Values that go by two names, ours and that of the documents: either does, and so do both while they say the same.
 *
 * @since 0.1.0
 */
import * as Equal from "effect/Equal"
import * as Schema from "effect/Schema"

/**
 * A check of a struct: each alias, given with the name it stands for, says the same as that name where both are given.
 *
 * **Example** (A stream under two names)
 *
 * ```ts
 * import * as Alias from "@strata/http-api/Alias"
 * import * as Schema from "effect/Schema"
 *
 * const Place = Schema.Struct({
 *   streamId: Schema.optionalKey(Schema.String),
 *   aggregateId: Schema.optionalKey(Schema.String)
 * }).check(Alias.agree({ aggregateId: "streamId" }))
 * ```
 *
 * @category checks
 * @since 0.1.0
 */
export const agree = <const Names extends Readonly<Record<string, string>>>(names: Names) => {
  const pairs = Object.entries(names)
  return Schema.makeFilter<{ readonly [Name in (keyof Names & string) | Names[keyof Names]]?: unknown }>((value) => {
    const said: Readonly<Record<string, unknown>> = value
    return pairs
      .filter(([alias, name]) => alias in said && name in said && !Equal.equals(said[alias], said[name]))
      .map(([alias, name]) => ({
        path: [alias],
        issue: `Expected what ${name} says: it is the same under another name`
      }))
  })
}
