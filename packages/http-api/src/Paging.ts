/**
 * Keyset pages: a list is read page by page, each after the cursor the one before gave.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Schema from "effect/Schema"
import { label } from "./Text.ts"

/**
 * Items of a page, 1 to 500. The server's default is 50.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Limit = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 500 })).annotate({
  description: "Items of a page. Default: 50"
})

/**
 * The items of a page when the request does not say.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultLimit = 50

/**
 * Where the next page starts: a text to be given back as it is.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Cursor = label(512).annotate({ description: "`nextCursor` of the page before" })

/**
 * The query parameters of a page.
 *
 * @category schemas
 * @since 0.1.0
 */
export const query = {
  limit: Schema.optionalKey(Limit),
  cursor: Schema.optionalKey(Cursor)
}

/**
 * What tells how to go on after a page.
 *
 * @category schemas
 * @since 0.1.0
 */
export const fields = {
  nextCursor: Schema.NullOr(Schema.String).annotate({ description: "Cursor of the next page, null on the last one" }),
  hasMore: Schema.Boolean
}

/**
 * A number of things at a moment.
 *
 * @category models
 * @since 0.1.0
 */
export const Count = Schema.Struct({
  value: Schema.String.annotate({ description: "In digits" }),
  exact: Schema.Boolean.annotate({
    description: "False where it is not known yet, or there are more than are counted"
  }),
  asOf: Schema.NullOr(Timestamp.Timestamp).annotate({ description: "Null before there was anything" })
}).annotate({ identifier: "Count" })
export type Count = typeof Count.Type
