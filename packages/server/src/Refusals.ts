/**
 * How refusals of the domain and of the event store are answered.
 *
 * @since 0.1.0
 */
import type { Reason } from "@strata/conversations/domain/ConversationError"
import type { CallError } from "@strata/conversations/write/Conversations"
import type { EventStoreError } from "@strata/event-store/EventStore"
import {
  BadRequest,
  Conflict,
  type FieldError,
  NotFound,
  RuleViolated,
  type ServiceUnavailable
} from "@strata/http-api/Problem"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import { databaseUnavailable } from "./Unavailable.ts"

/**
 * A mistake in the request. `path` names the part and the field.
 *
 * @category constructors
 * @since 0.1.0
 */
export const mistake = (path: string, message: string): BadRequest => mistakes([{ path, message }])

/**
 * Several mistakes in the request, or the first of very many.
 *
 * @category constructors
 * @since 0.1.0
 */
export const mistakes = (errors: NonEmptyReadonlyArray<FieldError>): BadRequest =>
  new BadRequest({ detail: `${errors[0].path}: ${errors[0].message}`, errors: errors.slice(0, 50) })

/**
 * The problem a conversation's refusal is answered with.
 *
 * @category conversions
 * @since 0.1.0
 */
export const ofConversation = (reason: Reason): NotFound | Conflict | RuleViolated => {
  switch (reason._tag) {
    case "ConversationNotFound":
      return new NotFound({ detail: reason.message })
    case "ConversationExists":
    case "MessageIdTaken":
    case "ParticipantHasOtherRole":
      return new Conflict({ detail: reason.message })
    default:
      return new RuleViolated({ rule: reason._tag, detail: reason.message })
  }
}

/**
 * The problem an event store's refusal is answered with. A refusal that no write of this server can meet is a rule of
 * the store, named by its tag. `place` tells where in the request a field of the write came from.
 *
 * @category conversions
 * @since 0.1.0
 */
export const ofEventStore = (
  error: EventStoreError,
  place: (field: string) => string = () => "body"
): NotFound | Conflict | BadRequest | RuleViolated | ServiceUnavailable => {
  const { message, reason } = error
  const rule: string = reason._tag
  switch (reason._tag) {
    case "VersionConflict":
      return new Conflict({ detail: message, actualVersion: reason.actual })
    case "ConditionFailed":
      return new Conflict({ detail: message, blockingPosition: String(reason.position) })
    case "EventIdTaken":
      return new Conflict({ detail: message })
    case "IdempotencyKeyUsed":
      return new Conflict({ detail: "The idempotency key is being used: repeat the request" })
    case "InvalidAppend":
      return mistake(place(reason.path), message)
    case "UnknownFact":
      return new NotFound({ detail: message, reason: "unknown" })
    case "FactRetracted":
      return new Conflict({ detail: message, retraction: reason.retraction })
    case "RevisionConflict":
      return new Conflict({ detail: message, actualRevision: reason.actual })
    case "StoreUnavailable":
      return databaseUnavailable()
    default:
      return new RuleViolated({ rule, detail: message })
  }
}

/**
 * Answers what a command may fail with. A history that cannot be read is a defect.
 *
 * @category conversions
 * @since 0.1.0
 */
export const answer = <A, R>(
  command: Effect.Effect<A, CallError | RuleViolated, R>,
  place?: (field: string) => string
) =>
  command.pipe(
    Effect.catchTags({
      ConversationError: ({ reason }) => Effect.fail(ofConversation(reason)),
      EventStoreError: (error) => Effect.fail(ofEventStore(error, place)),
      EventDecodeError: Effect.die
    })
  )
