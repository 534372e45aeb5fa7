import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as Analytics from "@strata/conversations/analytics/Analytics"
import { MessageAnalytics } from "@strata/conversations/analytics/MessageAnalytics"
import { ResponseTimes } from "@strata/conversations/analytics/ResponseTimes"
import { ConversationEvents, type EventOf, MessageSent } from "@strata/conversations/domain/ConversationEvent"
import { ConversationProjections } from "@strata/conversations/read/ConversationProjections"
import * as ConversationQueries from "@strata/conversations/read/ConversationQueries"
import * as Conversations from "@strata/conversations/write/Conversations"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { beginning, type Fact } from "@strata/event-store/Fact"
import type { KnownAt } from "@strata/event-store/FactQuery"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Projections from "@strata/projections/Projections"
import * as Replay from "@strata/projections/Replay"
import { migrations } from "@strata/server/Server"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { demoArchive, packFolder } from "../zulip/packArchive.ts"
import { type Topic, topicFiles } from "../zulip/ZulipArchive.ts"
import { importTopics } from "../zulip/ZulipImport.ts"

/** The application on a database of its own. */
const application = Layer.mergeAll(
  Conversations.layer(),
  ConversationQueries.layer,
  Analytics.layer,
  Projections.layer(ConversationProjections)
).pipe(
  Layer.provideMerge(EventStorePostgres.layer()),
  Layer.provideMerge(PostgresTest.layer({ migrations }))
)

/** The archive that `STRATA_TEST_ARCHIVE` names, or the invented one that comes with the project. */
const archive = Effect.gen(function*() {
  const named = yield* Config.option(Config.String("STRATA_TEST_ARCHIVE"))
  if (Option.isSome(named)) return named.value
  const fs = yield* FileSystem.FileSystem
  const file = `${yield* fs.makeTempDirectoryScoped()}/demo.tar.gz`
  yield* packFolder(demoArchive, file)
  return file
})

const importing = Effect.fnUntraced(function*(file: string, change: (topic: Topic) => Topic) {
  yield* importTopics(
    topicFiles(file, () => {}).pipe(Stream.map((each) => ({ ...each, topic: Result.map(each.topic, change) })))
  )
})

/** Every figure there is, of the whole and of a few days. */
const figures = Effect.fnUntraced(function*(knownAt?: KnownAt) {
  const analytics = yield* Analytics.Analytics
  const activity = yield* analytics.activity({ knownAt })
  const [first] = activity.days
  const { days: [, ...more] } = activity
  const responseTimes = yield* analytics.responseTimes({ knownAt })
  const volume = yield* analytics.volume({ knownAt })
  const each = [first, ...more.filter((_, index) => index % 97 === 0)].flatMap((day) =>
    day === undefined ? [] : [day.date]
  )
  const days = yield* Effect.forEach(
    each,
    (date) => analytics.day({ day: Option.getOrThrow(Timestamp.parse(`${date}T00:00:00Z`)), limit: 500, knownAt })
  )
  return { activity, responseTimes, volume, days }
})

interface Sent {
  readonly fact: Fact
  readonly event: EventOf<"MessageSent">
}

/** Thirteen messages that are not the first of their conversation, from all over the log. */
const chosen = Effect.gen(function*() {
  const store = yield* EventStore
  const sent: Array<Sent> = []
  let after = beginning
  while (true) {
    const facts = yield* store.readLog({ after, filter: { types: ["MessageSent"], category: "conversation" } })
    if (facts.length === 0) break
    after = facts.at(-1)!.position
    for (const fact of facts) {
      const event = Result.getOrThrow(ConversationEvents.decode(fact))
      if (event._tag === "MessageSent" && event.ordinal > 1) sent.push({ fact, event })
    }
  }
  return Array.from({ length: 13 }, (_, index) => sent[Math.floor(index * sent.length / 13)]!)
})

const minutesLater = (index: number) => 7 * (index + 1)

layer(NodeServices.layer, { excludeTestServices: true })("an archive", (it) => {
  it.effect(
    "with ten sent times corrected and three messages retracted has the figures of one imported with the right data, and as known before, its own",
    () =>
      Effect.gen(function*() {
        const file = yield* archive
        const changes = new Map<string, number | "retracted">()
        const { before, corrected, replayed } = yield* Effect.gen(function*() {
          yield* importing(file, (topic) => topic)
          const store = yield* EventStore
          const projections = yield* Projections.Projections
          const before = yield* figures()
          const knownAt = { position: yield* store.head }
          for (const [index, { event, fact }] of (yield* chosen).entries()) {
            const why = { revises: fact.eventId, reason: "the clock was wrong", actor: "ada" }
            if (index % 4 === 3) {
              changes.set(event.messageId, "retracted")
              yield* store.revise({ _tag: "Retraction", ...why })
            } else {
              const minutes = minutesLater(index)
              changes.set(event.messageId, minutes * 60)
              const sentAt = Timestamp.fromMicros(event.sentAt + BigInt(minutes) * 60_000_000n)
              yield* store.revise(ConversationEvents.encodeCorrection(MessageSent.make({ ...event, sentAt }), why))
            }
          }
          yield* projections.catchUp()
          const corrected = yield* figures()
          yield* Replay.run(MessageAnalytics, { into: "then_messages", knownAt })
          yield* Replay.run(ResponseTimes, { into: "then_responses", knownAt })
          return { before, corrected, replayed: yield* figures(knownAt) }
        }).pipe(Effect.provide(application, { local: true }))
        assert.strictEqual(changes.size, 13)
        assert.strictEqual([...changes.values()].filter((change) => change === "retracted").length, 3)

        const right = yield* Effect.gen(function*() {
          yield* importing(file, (topic) => {
            const [first, ...later] = topic.messages
            return {
              ...topic,
              messages: [
                first,
                ...later.flatMap((message) => {
                  const change = changes.get(String(message.id))
                  if (change === "retracted") return []
                  return [change === undefined ? message : { ...message, timestamp: message.timestamp + change }]
                })
              ]
            }
          })
          return yield* figures()
        }).pipe(Effect.provide(application, { local: true }))

        assert.notDeepEqual(corrected, before)
        deepStrictEqual(corrected, right)
        deepStrictEqual(replayed, before)
      }).pipe(Effect.scoped),
    300_000
  )
})
