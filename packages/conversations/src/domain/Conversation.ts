/**
 * What conversations are made of: ids, roles, kinds and the limits of each.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/** Text that PostgreSQL stores as it is: no NUL, and no half of a surrogate pair. */
const storable = Schema.makeFilter((text: string) =>
  !text.includes("\0") && text.isWellFormed() || "Expected text without NUL and without lone surrogates"
)

const Id = Schema.String.pipe(Schema.check(Schema.isMinLength(1), Schema.isMaxLength(255), storable))

/**
 * Names a conversation within its tenant: 1 to 255 characters, none of them NUL.
 *
 * @category models
 * @since 0.1.0
 */
export const ConversationId = Id.pipe(
  Schema.brand("@strata/conversations/ConversationId"),
  Schema.annotate({ identifier: "ConversationId" })
)
export type ConversationId = typeof ConversationId.Type

/**
 * Names a message within its conversation: 1 to 255 characters, none of them NUL.
 *
 * @category models
 * @since 0.1.0
 */
export const MessageId = Id.pipe(
  Schema.brand("@strata/conversations/MessageId"),
  Schema.annotate({ identifier: "MessageId" })
)
export type MessageId = typeof MessageId.Type

/**
 * Names a person or a program that takes part: 1 to 255 characters, none of them NUL.
 *
 * @category models
 * @since 0.1.0
 */
export const UserId = Id.pipe(
  Schema.brand("@strata/conversations/UserId"),
  Schema.annotate({ identifier: "UserId" })
)
export type UserId = typeof UserId.Type

/**
 * Names a tenant: 1 to 128 characters, none of them NUL or `/`. Tenants share nothing, ids included.
 *
 * @category models
 * @since 0.1.0
 */
export const Tenant = Schema.String.pipe(
  Schema.check(
    Schema.isPattern(/^[^/]+$/, { message: "Expected a name without /" }),
    Schema.isMaxLength(128),
    storable
  ),
  Schema.brand("@strata/conversations/Tenant"),
  Schema.annotate({ identifier: "Tenant" })
)
export type Tenant = typeof Tenant.Type

/**
 * The tenant of those who have none.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultTenant = Tenant.make("default")

/**
 * The part a participant has.
 *
 * @category models
 * @since 0.1.0
 */
export const Role = Schema.Literals(["CUSTOMER", "SERVICE_PROVIDER", "ADMIN", "SYSTEM"]).pipe(
  Schema.annotate({ identifier: "ParticipantRole" })
)
export type Role = typeof Role.Type

/**
 * What a conversation is about.
 *
 * @category models
 * @since 0.1.0
 */
export const ContextType = Schema.Literals(["BOOKING", "SERVICE", "GENERAL", "SUPPORT"]).pipe(
  Schema.annotate({ identifier: "ConversationContextType" })
)
export type ContextType = typeof ContextType.Type

/**
 * Whether messages can be sent.
 *
 * @category models
 * @since 0.1.0
 */
export const Status = Schema.Literals(["ACTIVE", "ARCHIVED", "BLOCKED"]).pipe(
  Schema.annotate({ identifier: "ConversationStatus" })
)
export type Status = typeof Status.Type

/**
 * What a message is.
 *
 * @category models
 * @since 0.1.0
 */
export const MessageType = Schema.Literals(["TEXT", "IMAGE", "FILE", "SYSTEM", "BOOKING_UPDATE", "PAYMENT_UPDATE"])
  .pipe(
    Schema.annotate({ identifier: "MessageType" })
  )
export type MessageType = typeof MessageType.Type

/** An escape that `JSON.stringify` writes for a NUL or for half of a surrogate pair only. */
const unstorableEscape = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/

const storableJson = Schema.makeFilter((value: Metadata) => {
  const text = JSON.stringify(value)
  return text.length <= 16_384 && !unstorableEscape.test(text) ||
    "Expected at most 16,384 characters of JSON, without NUL and without lone surrogates"
})

/**
 * Whatever the application wants to keep with a conversation or a message: at most 16,384 characters of JSON.
 *
 * @category models
 * @since 0.1.0
 */
export const Metadata = Schema.Record(Schema.String, Schema.Json).pipe(
  Schema.check(storableJson),
  Schema.annotate({ identifier: "Metadata" })
)
export type Metadata = { readonly [key: string]: Schema.Json }

/**
 * What a conversation refers to: its kind, the id of the thing (a booking, a service) and more about it.
 *
 * @category models
 * @since 0.1.0
 */
export const Context = Schema.Struct({
  type: ContextType,
  id: Schema.NullOr(Id),
  metadata: Schema.NullOr(Metadata)
}).pipe(Schema.annotate({ identifier: "ConversationContext" }))
export type Context = typeof Context.Type

/**
 * About nothing in particular.
 *
 * @category constants
 * @since 0.1.0
 */
export const generalContext: Context = { type: "GENERAL", id: null, metadata: null }

/**
 * Somebody who takes part, and as what.
 *
 * @category models
 * @since 0.1.0
 */
export const Participant = Schema.Struct({ userId: UserId, role: Role }).pipe(
  Schema.annotate({ identifier: "Participant" })
)
export type Participant = typeof Participant.Type
