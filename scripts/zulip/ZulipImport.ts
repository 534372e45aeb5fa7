/**
 * Imports topics through the command handlers: each topic becomes a conversation.
 *
 * The sender of the first message is the CUSTOMER, everybody else joins as a SERVICE_PROVIDER with the first message they
 * send. A message keeps its Zulip id, and its `timestamp` is when it was sent. All of it is idempotent, so an import
 * that was interrupted is run again.
 */
import { Analytics } from "@strata/conversations/analytics/Analytics"
import { ConversationId, MessageId, UserId } from "@strata/conversations/domain/Conversation"
import { ConversationQueries } from "@strata/conversations/read/ConversationQueries"
import { type Command, Conversations } from "@strata/conversations/write/Conversations"
import { EventStore } from "@strata/event-store/EventStore"
import * as Timestamp from "@strata/postgres/Timestamp"
import { Projections } from "@strata/projections/Projections"
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import type { ArchiveUnreadable, Topic, TopicFile } from "./ZulipArchive.ts"

/** A file of the archive that was left out, and why. */
export interface Skipped {
  readonly path: string
  readonly reason: string
}

/** Commands decided and appended as one. */
const chunkSize = 250

/** Topics imported at a time. */
const concurrency = 8

/** Imports every topic, brings the read models up to date, and tells what they hold. */
export const importTopics = Effect.fnUntraced(function*<R>(files: Stream.Stream<TopicFile, ArchiveUnreadable, R>) {
  const start = yield* Clock.currentTimeMillis
  const skipped: Array<Skipped> = []
  yield* files.pipe(
    Stream.mapEffect(({ path, topic }) =>
      Effect.fromResult(topic).pipe(
        Effect.flatMap(importTopic),
        // A conversation that the domain refuses is the file's fault; a store that is away is not.
        Effect.catchTag("ConversationError", (error) => Effect.fail(error.message)),
        Effect.catchIf((error) => typeof error === "string", (reason) =>
          Effect.sync(() => void skipped.push({ path, reason })))
      ), { concurrency, unordered: true }),
    Stream.runDrain
  )
  const projections = yield* Projections
  yield* projections.catchUp({ timeout: "10 minutes" })
  return { summary: yield* summarize(start), skipped }
})

const importTopic = Effect.fnUntraced(function*(topic: Topic) {
  const conversations = yield* Conversations
  const id = conversationId(topic)
  for (const commands of Arr.chunksOf(commandsOf(topic), chunkSize)) {
    yield* conversations.execute(id, commands, { actor: "import:zulip", announce: false })
  }
})

/** Topics have names of any length: the id holds a digest of it, and the context the name. */
const conversationId = ({ name, stream }: Topic): ConversationId =>
  ConversationId.make(`zulip-${createHash("sha256").update(`${stream}\0${name}`).digest("hex").slice(0, 24)}`)

const commandsOf = (topic: Topic): Arr.NonEmptyArray<Command> => {
  const [first, ...later] = topic.messages
  const customer = UserId.make(first.sender_full_name)
  const joined = new Set<string>([customer])
  const commands: Arr.NonEmptyArray<Command> = [{
    _tag: "Start",
    participants: [{ userId: customer, role: "CUSTOMER" }],
    context: { type: "GENERAL", metadata: { zulipStream: topic.stream, zulipTopic: topic.name } },
    at: sentAt(first)
  }]
  for (const message of [first, ...later]) {
    const senderId = UserId.make(message.sender_full_name)
    if (!joined.has(senderId)) {
      joined.add(senderId)
      commands.push({ _tag: "Add", userId: senderId, role: "SERVICE_PROVIDER", at: sentAt(message) })
    }
    commands.push({
      _tag: "Send",
      messageId: MessageId.make(String(message.id)),
      senderId,
      content: message.content,
      at: sentAt(message)
    })
  }
  return commands
}

const sentAt = (message: Topic["messages"][0]) => Timestamp.fromMillis(message.timestamp * 1000)

/** What the read models hold after an import. Response times are in minutes, days in UTC. */
const summarize = Effect.fnUntraced(function*(start: number) {
  const queries = yield* ConversationQueries
  const analytics = yield* Analytics
  const store = yield* EventStore
  const totals = yield* queries.totals({})
  const { count, max, mean, min, p50, p90, p95 } = yield* analytics.responseTimes({})
  const { days } = yield* analytics.activity({})
  return {
    ...totals,
    lastPosition: String(yield* store.head),
    durationMs: Math.round((yield* Clock.currentTimeMillis) - start),
    responseMinutes: { count, mean, p50, p90, p95, min, max },
    daily: days.map(({ activeConversations, activeUsers, date, messages }) => ({
      date,
      messages,
      activeConversations,
      activeUsers
    }))
  }
})

type Summary = Effect.Success<ReturnType<typeof summarize>>

const minutes = (value: number | null) => value === null ? "–" : `${value.toFixed(1)} min`

/** The summary in a few lines. */
export const describeSummary = (
  { conversations, daily, durationMs, lastPosition, messages, participants, responseMinutes }: Summary
) =>
  [
    `${conversations} conversations, ${messages} messages, ${participants} participants; the log is at ${lastPosition}`,
    `${responseMinutes.count} responses: mean ${minutes(responseMinutes.mean)}, median ${
      minutes(responseMinutes.p50)
    }, ` +
    `90 % within ${minutes(responseMinutes.p90)}, 95 % within ${minutes(responseMinutes.p95)}`,
    ...(daily.length === 0 ? [] : [`${daily.length} days with messages, ${daily[0]!.date} to ${daily.at(-1)!.date}`]),
    `${(durationMs / 1000).toFixed(1)} s`
  ].join("\n")
