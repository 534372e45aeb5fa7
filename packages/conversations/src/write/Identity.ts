/**
 * Ids that follow from what they name, so that the same thing written twice is stored once.
 *
 * @since 0.1.0
 */
import { EventId } from "@strata/event-store/Fact"
import * as Crypto from "node:crypto"
import type { ConversationEvent } from "../domain/ConversationEvent.ts"

/**
 * SHA-256 of the text's UTF-8, in hexadecimal.
 *
 * @category hashing
 * @since 0.1.0
 */
export const sha256 = (text: string): string => Crypto.hash("sha256", text, "hex")

/**
 * The id of an event that happens once by its nature: a conversation starts once, a message is sent once. It is a UUID
 * of version 8 (RFC 9562), made from the SHA-256 of what it names. Other events get a new id. Ids are a tenant's own.
 *
 * @category constructors
 * @since 0.1.0
 */
export const eventId = (conversationId: string, event: ConversationEvent): EventId | undefined => {
  switch (event._tag) {
    case "ConversationStarted":
      return uuidOf(`${conversationId}\0started`)
    case "MessageSent":
      return uuidOf(`${conversationId}\0sent\0${event.messageId}`)
    default:
      return undefined
  }
}

/**
 * A UUID of version 8 (RFC 9562), made from the SHA-256 of a name.
 *
 * @category constructors
 * @since 0.1.0
 */
export const uuidOf = (name: string): EventId => {
  const hex = sha256(name)
  const variant = (Number.parseInt(hex.slice(16, 17), 16) & 0b0011 | 0b1000).toString(16)
  return EventId.make(
    `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`
  )
}
