import { layer } from "@effect/vitest"
import { ConversationId, MessageId, UserId } from "@strata/conversations/domain/Conversation"
import {
  ConversationArchived,
  type ConversationEvent,
  ConversationEvents,
  ConversationStarted,
  MessageSent,
  MessagesRead,
  ParticipantJoined,
  ParticipantMuted,
  ParticipantUnmuted
} from "@strata/conversations/domain/ConversationEvent"
import { ConversationProjections } from "@strata/conversations/read/ConversationProjections"
import { EventStore } from "@strata/event-store/EventStore"
import { type EventId, streamId } from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as ProjectionTest from "@strata/testing/ProjectionTest"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import { Application } from "../Application.ts"

const below = (end: number) => Random.nextIntBetween(0, end, { halfOpen: true })
const users = Arr.makeBy(5, (index) => UserId.make(`user-${index}`))
const roleOf = (number: number) => number % 2 === 0 ? "CUSTOMER" as const : "SERVICE_PROVIDER" as const
const someTime = Effect.map(below(40), (fives) => Timestamp.fromMillis(fives * 5 * 60_000))

const message = Effect.fnUntraced(function*(conversationId: ConversationId, ordinal: number) {
  const sender = yield* below(5)
  const content = `message ${yield* below(1000)}`
  return MessageSent.make({
    conversationId,
    messageId: MessageId.make(`m${ordinal}`),
    ordinal,
    senderId: users[sender]!,
    senderRole: roleOf(sender),
    type: "TEXT",
    content,
    contentHash: "0".repeat(64),
    size: content.length,
    replyTo: null,
    metadata: null,
    sentAt: yield* someTime
  })
})

/** What happens in one conversation, each with the event that it is corrected to, should it be. */
const eventsOf = Effect.fnUntraced(function*(conversationId: ConversationId) {
  const events: Array<readonly [ConversationEvent, ConversationEvent]> = []
  const started = (at: Timestamp.Timestamp) =>
    ConversationStarted.make({
      conversationId,
      context: { type: "GENERAL", id: null, metadata: null },
      participants: [{ userId: users[0]!, role: "CUSTOMER" }, { userId: users[1]!, role: "SERVICE_PROVIDER" }],
      startedAt: at
    })
  events.push([started(yield* someTime), started(yield* someTime)])
  let sent = 0
  for (let index = 0; index < 5; index++) {
    const kind = yield* below(10)
    if (kind < 6 || sent === 0) {
      sent++
      events.push([yield* message(conversationId, sent), yield* message(conversationId, sent)])
    } else if (kind < 8) {
      const userId = users[yield* below(2)]!
      const read = Effect.map(
        Effect.all([below(sent), someTime]),
        ([before, readAt]) =>
          MessagesRead.make({
            conversationId,
            userId,
            upTo: MessageId.make(`m${before + 1}`),
            ordinal: before + 1,
            readAt
          })
      )
      events.push([yield* read, yield* read])
    } else if (kind === 8 && index < 4) {
      const userId = users[2 + (index % 3)]!
      const joined = (role: "CUSTOMER" | "SERVICE_PROVIDER", joinedAt: Timestamp.Timestamp) =>
        ParticipantJoined.make({ conversationId, userId, role, joinedAt })
      if (!events.some(([event]) => event._tag === "ParticipantJoined" && event.userId === userId)) {
        events.push([joined("CUSTOMER", yield* someTime), joined("SERVICE_PROVIDER", yield* someTime)])
      }
    } else if ((yield* below(2)) === 0) {
      const userId = users[yield* below(2)]!
      const isMuted = (yield* below(3)) > 0
      const said = Effect.map(someTime, (at) =>
        isMuted
          ? ParticipantMuted.make({ conversationId, userId, mutedAt: at })
          : ParticipantUnmuted.make({ conversationId, userId, unmutedAt: at }))
      events.push([yield* said, yield* said])
    } else {
      const archived = Effect.map(someTime, (archivedAt) => ConversationArchived.make({ conversationId, archivedAt }))
      events.push([yield* archived, yield* archived])
    }
  }
  return events
})

/** A conversation is written fact by fact; now and then one that is there is corrected, or retracted. */
const history = Effect.fnUntraced(function*(number: number) {
  const store = yield* EventStore
  const conversationId = ConversationId.make(`c${number}`)
  const stream = streamId("conversation", conversationId)
  const written: Array<{ readonly eventId: EventId; readonly other: ConversationEvent; retracted: boolean }> = []
  const revise = Effect.gen(function*() {
    const one = written[yield* below(written.length)]
    if (one === undefined || one.retracted) return
    if ((yield* below(3)) === 0) {
      one.retracted = true
      yield* store.revise({ _tag: "Retraction", revises: one.eventId, reason: "it never happened", actor: "ada" })
    } else {
      yield* store.revise(
        ConversationEvents.encodeCorrection(one.other, {
          revises: one.eventId,
          reason: "it was otherwise",
          actor: "ada"
        })
      )
    }
  })
  for (const [event, other] of yield* eventsOf(conversationId)) {
    const { facts } = yield* store.append({ facts: [ConversationEvents.encode(event, { stream })] })
    written.push({ eventId: facts[0]!.eventId, other, retracted: false })
    if ((yield* below(4)) === 0) yield* revise
  }
  yield* revise
})

const histories = (count: number, seed: number) =>
  Effect.forEach(Arr.range(1, count), (number) => Random.withSeed(history(number), seed + number), {
    concurrency: 16,
    discard: true
  })

layer(Application, { excludeTestServices: true })("conversations' projections", (it) => {
  it.effect(
    "live with corrections, rebuilt from scratch and replayed as known now are the same, in a thousand histories",
    () => ProjectionTest.law(ConversationProjections, histories(1000, 20_261), { batchSize: 50 }),
    120_000
  )
})
