import { assert, layer } from "@effect/vitest"
import { ConversationId, MessageId, Tenant, UserId } from "@strata/conversations/domain/Conversation"
import * as Conversations from "@strata/conversations/write/Conversations"
import { EventStore } from "@strata/event-store/EventStore"
import { beginning, type Fact } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import { range } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import { Application, project } from "../Application.ts"

const users = Array.from({ length: 6 }, (_, index) => UserId.make(`user-${index}`))
const tenants = [Tenant.make("default"), Tenant.make("acme")]

const below = (end: number) => Random.nextIntBetween(0, end, { halfOpen: true })

/** A random history of a few conversations: joins, messages sent in any order of time, reads, mutes. */
const randomHistory = Effect.fnUntraced(function*(rounds: ReadonlyArray<number>) {
  const conversations = yield* Conversations.Conversations
  const sentIds = new Map<string, Array<string>>()
  for (const round of rounds) {
    const tenant = tenants[yield* below(2)]!
    const conversationId = ConversationId.make(`c${yield* below(4)}`)
    const key = `${tenant}/${conversationId}`
    const sent = sentIds.get(key) ?? []
    sentIds.set(key, sent)
    const commands: [Conversations.Command, ...Array<Conversations.Command>] = [{
      _tag: "Start",
      at: Timestamp.fromMillis(0),
      participants: [{ userId: users[0]!, role: "CUSTOMER" }, { userId: users[1]!, role: "SERVICE_PROVIDER" }]
    }]
    for (let index = 0; index < 8; index++) {
      const number = yield* below(users.length)
      const userId = users[number]!
      const at = Timestamp.fromMillis((yield* below(3 * 24 * 12)) * 5 * 60_000)
      commands.push({ _tag: "Add", at, userId, role: number % 2 === 0 ? "CUSTOMER" : "SERVICE_PROVIDER" })
      const kind = yield* below(10)
      if (kind < 7) {
        const messageId = MessageId.make(`${round}-${index}`)
        sent.push(messageId)
        commands.push({ _tag: "Send", at, messageId, senderId: userId, content: `message ${round}-${index}` })
      } else if (kind === 9) {
        commands.push({ _tag: "Mute", at, userId, muted: (yield* below(2)) === 0 })
      } else if (sent.length > 0) {
        const upTo = sent[yield* below(sent.length)]!
        commands.push({ _tag: "Read", at, userId, upTo: kind === 7 ? undefined : MessageId.make(upTo) })
      }
    }
    yield* conversations.execute(conversationId, commands, { tenant })
  }
})

const tables = [
  "conversation",
  "conversation_participant",
  "conversation_message",
  "response_time",
  "response_source",
  "unread_source"
]

/** Every row of every read model, as text. */
const contents = Effect.gen(function*() {
  const { sql } = yield* Postgres
  return yield* Effect.forEach(tables, (table) =>
    Effect.map(
      sql<{ row: string }>`select t::text as row from ${sql(table)} as t order by t::text collate "C"`,
      (rows) => ({ table, rows: rows.map(({ row }) => row) })
    ))
})

// ---------------------------------------------------------------------------------------------------------- oracle

/** The fields of the events that the definitions speak of. */
interface Data {
  readonly conversationId: string
  readonly participants: ReadonlyArray<{ readonly userId: string }>
  readonly userId: string
  readonly senderId: string
  readonly senderRole: string
  readonly ordinal: number
}
const dataOf = (fact: Fact) => fact.data as unknown as Data

const byConversation = (facts: ReadonlyArray<Fact>) =>
  Map.groupBy(facts, (fact) => `${fact.tenant} ${dataOf(fact).conversationId}`)

/** Unread messages as the documentation defines them, for each participant of each conversation. */
const unreadOf = (facts: ReadonlyArray<Fact>) =>
  [...byConversation(facts)].flatMap(([conversation, all]) => {
    const joins = all.flatMap((fact, index) => {
      if (fact.type === "ConversationStarted") {
        return dataOf(fact).participants.map(({ userId }) => ({ userId, index }))
      }
      return fact.type === "ParticipantJoined" ? [{ userId: dataOf(fact).userId, index }] : []
    })
    return joins.map(({ index, userId }) => {
      const reads = all.filter((fact) => fact.type === "MessagesRead" && dataOf(fact).userId === userId)
      const readUpTo = Math.max(0, ...reads.map((fact) => dataOf(fact).ordinal))
      const unread = all.slice(index).filter((fact) =>
        fact.type === "MessageSent" && dataOf(fact).senderId !== userId && dataOf(fact).ordinal > readUpTo
      )
      return `${conversation} ${userId} ${unread.length}`
    })
  }).toSorted()

/** Response times as the documentation defines them: the microseconds for each customer message that has a response. */
const responsesOf = (facts: ReadonlyArray<Fact>) =>
  [...byConversation(facts)].flatMap(([conversation, all]) => {
    const messages = all.filter(({ type }) => type === "MessageSent")
    const of = (role: string) => messages.filter((fact) => dataOf(fact).senderRole === role)
    return of("CUSTOMER").flatMap((request) => {
      const waits = of("SERVICE_PROVIDER")
        .map(({ validFrom }) => validFrom - request.validFrom)
        .filter((wait) => wait > 0n && wait < 86_400_000_000n)
        .toSorted((a, b) => a < b ? -1 : 1)
      return waits[0] === undefined ? [] : [`${conversation} ${dataOf(request).ordinal} ${waits[0]}`]
    })
  }).toSorted()

layer(Application, { excludeTestServices: true })("the read models", (it) => {
  it.effect("are the same from batches of any size, from a rebuild, and from their definitions", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const store = yield* EventStore
      const seed = 20_261
      yield* Effect.gen(function*() {
        yield* randomHistory(range(0, 29))
        yield* project({ batchSize: 7 })
        yield* randomHistory(range(30, 59))
        const conversations = yield* Conversations.Conversations
        yield* conversations.archive(ConversationId.make("c3"), { at: Timestamp.fromMillis(9_000_000) })
        yield* project({ batchSize: 50 })
      }).pipe(Random.withSeed(seed))
      const incremental = yield* contents

      yield* project({ batchSize: 1000, version: 2 })
      assert.deepStrictEqual(yield* contents, incremental)
      yield* project({ batchSize: 1, version: 3 })
      assert.deepStrictEqual(yield* contents, incremental)

      const facts = yield* store.readLog({ after: beginning, limit: 10_000 })
      const unread = yield* sql<{ line: string }>`
        select concat_ws(' ', tenant, conversation_id, user_id, unread_count) as line from conversation_participant`
      assert.deepStrictEqual(unread.map(({ line }) => line).toSorted(), unreadOf(facts))
      const responses = yield* sql<{ line: string }>`
        select concat_ws(
          ' ', tenant, conversation_id, ordinal, (extract(epoch from responded_at - sent_at) * 1000000)::bigint
        ) as line
        from response_time where responded_at is not null`
      assert.isAbove(responses.length, 50)
      assert.deepStrictEqual(responses.map(({ line }) => line).toSorted(), responsesOf(facts))

      const counts = yield* sql<{ conversations: bigint }>`
        select count(*) as conversations from conversation as c
        where message_count = (select count(*) from conversation_message as m where (m.tenant, m.conversation_id) = (c.tenant, c.conversation_id))
          and participant_count = (
            select count(*) from conversation_participant as p
            where (p.tenant, p.conversation_id) = (c.tenant, c.conversation_id)
          )
          and last_message_id = (
            select message_id from conversation_message as m where (m.tenant, m.conversation_id) = (c.tenant, c.conversation_id)
            order by sent_at desc, ordinal desc limit 1
          )`
      assert.deepStrictEqual(counts, [{ conversations: 8n }])
    }))
})
