/**
 * The facts that every system stores: some 190 bytes of data and some 190 bytes of metadata.
 *
 * @since 0.1.0
 */
import * as EventDefinition from "@strata/event-store/EventDefinition"
import * as Schema from "effect/Schema"

const OrderLineAdded = EventDefinition.make("OrderLineAdded", {
  fields: { orderId: Schema.String, sku: Schema.String, quantity: Schema.Int, price: Schema.Int, note: Schema.String }
})

/**
 * The domain's events, as Strata decodes them.
 *
 * @category schemas
 * @since 0.1.0
 */
export const events = EventDefinition.set([OrderLineAdded])

/**
 * The type of all facts.
 *
 * @category constants
 * @since 0.1.0
 */
export const type = OrderLineAdded.tag

/**
 * What is stored of a fact besides its type.
 *
 * @category models
 * @since 0.1.0
 */
export type Data = Omit<typeof OrderLineAdded.schema.Type, "_tag">

/**
 * The nth order line.
 *
 * @category constructors
 * @since 0.1.0
 */
export const data = (n: number): Data => ({
  orderId: `order-${n}`,
  sku: `SKU-${n % 1000}`,
  quantity: n % 9 + 1,
  price: 1999,
  note: "a line long enough to bring the fact to the size of a common one, which is some 200 bytes"
})

/**
 * The metadata of all facts.
 *
 * @category constants
 * @since 0.1.0
 */
export const metadata = {
  traceId: "4bf92f3577b34da6a3ce929d0e0e4736",
  spanId: "00f067aa0ba902b7",
  requestId: "5f0c5a52-0a37-4a5e-9f0e-6b1f4e2b8c11",
  sessionId: "c2b1e8f6-7d1e-4c55-9b64-0c9a3d1e5f70"
} as const

/**
 * Writes JSON as all systems do that are handed text.
 *
 * @category formatting
 * @since 0.1.0
 */
export const toJson: (value: unknown) => string = Schema.encodeUnknownSync(Schema.fromJsonString(Schema.Unknown))

/**
 * Reads JSON where the driver does not.
 *
 * @category formatting
 * @since 0.1.0
 */
export const fromJson: (text: string) => unknown = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Unknown))

/**
 * A stream's name. There are 32 categories, since a peer locks by category.
 *
 * @category constructors
 * @since 0.1.0
 */
export const streamName = (prefix: string, n: number): string => `orders${n % 32}-${prefix}-${n}`
