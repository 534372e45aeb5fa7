/**
 * A batch of conversations' facts, as projections look at it.
 *
 * @since 0.1.0
 */
import type { Fact } from "@strata/event-store/Fact"
import type { Projected } from "@strata/projections/Projection"
import type { ConversationId } from "../domain/Conversation.ts"
import type { ConversationEvent, EventOf } from "../domain/ConversationEvent.ts"

/**
 * Facts in log order.
 *
 * @category models
 * @since 0.1.0
 */
export type ConversationBatch = ReadonlyArray<Projected<ConversationEvent>>

/**
 * The events of one conversation in log order.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConversationSlice {
  readonly tenant: string
  readonly conversationId: ConversationId
  readonly events: ReadonlyArray<ConversationEvent>
}

/**
 * The batch by conversation, conversations in the order they first appear.
 *
 * @category combinators
 * @since 0.1.0
 */
export const slices = (batch: ConversationBatch): ReadonlyArray<ConversationSlice> => {
  const byKey = new Map<string, ConversationSlice & { readonly events: Array<ConversationEvent> }>()
  for (const { event, fact: { tenant } } of batch) {
    const key = `${tenant}\0${event.conversationId}`
    const slice = byKey.get(key)
    if (slice === undefined) byKey.set(key, { tenant, conversationId: event.conversationId, events: [event] })
    else slice.events.push(event)
  }
  return [...byKey.values()]
}

/**
 * The messages of a batch, with their facts.
 *
 * @category combinators
 * @since 0.1.0
 */
export const messages = (batch: ConversationBatch): ReadonlyArray<EventOf<"MessageSent"> & { readonly fact: Fact }> =>
  batch.flatMap(({ event, fact }) => event._tag === "MessageSent" ? [{ ...event, fact }] : [])
