import { assert, layer } from "@effect/vitest"
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
import type { Projection } from "@strata/projections/Projection"
import * as ProjectionTest from "@strata/testing/ProjectionTest"
import * as Arr from "effect/Array"
import * as Config from "effect/Config"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
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

/** So many histories are under way at a time: facts of one are as far apart in a batch as they were with 16 and batches of 50. */
const underWay = 160
const batchSize = 800

const firstSeed = 20_261
const seedOf = (number: number) => firstSeed + number

const write = (numbers: ReadonlyArray<number>) =>
  Effect.forEach(numbers, (number) => Random.withSeed(history(number), seedOf(number)), {
    concurrency: underWay,
    discard: true
  })

/** Each history is one conversation, whatever others there are in the same database. */
const law = (numbers: ReadonlyArray<number>, projections = ConversationProjections) =>
  ProjectionTest.law(projections, write(numbers), { batchSize })

/** The histories whose rows are wrong. The ids of events do not look like those of conversations. */
const namedIn = ({ rows }: ProjectionTest.LawBroken) => [
  ...new Set(rows.flatMap((row) => [...row.matchAll(/(?<![\w-])c(\d+)(?![\w-])/g)].map(([, number]) => Number(number))))
]

/** Whether some histories break the law by themselves. */
const breaks = (numbers: ReadonlyArray<number>, projections: ReadonlyArray<Projection>) =>
  law(numbers, projections).pipe(
    Effect.as(undefined),
    Effect.catchTag("LawBroken", Effect.succeed),
    Effect.provide(Layer.fresh(Application))
  )

/** Of histories that break the law, as few as break it, each half by itself. */
const narrow: (
  numbers: ReadonlyArray<number>,
  projections: ReadonlyArray<Projection>
) => ReturnType<typeof breaks> extends Effect.Effect<infer _, infer E, infer R>
  ? Effect.Effect<ReadonlyArray<number>, E, R>
  : never = Effect.fnUntraced(function*(numbers, projections) {
    if (numbers.length === 1) return numbers
    const middle = Math.ceil(numbers.length / 2)
    for (const half of [numbers.slice(0, middle), numbers.slice(middle)]) {
      if ((yield* breaks(half, projections)) !== undefined) return yield* narrow(half, projections)
    }
    return numbers
  })

class HistoryWrong
  extends Data.TaggedError("HistoryWrong")<{ readonly numbers: ReadonlyArray<number>; readonly message: string }>
{}

/** The law; of a failure, which history is wrong, its seed, its facts, and whether it is wrong alone. */
const lawOf = (numbers: ReadonlyArray<number>, projections = ConversationProjections) =>
  law(numbers, projections).pipe(Effect.catchTag("LawBroken", (broken) =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const named = namedIn(broken)
      const wrong = named.length > 0 ? named : yield* narrow(numbers, projections)
      const told = yield* Effect.forEach(wrong.slice(0, 3), (number) =>
        Effect.gen(function*() {
          const alone = yield* breaks([number], projections)
          const facts = yield* store.readStream(streamId("conversation", `c${number}`))
          const lines = facts.map(({ data, position, retracted, revises, type }) =>
            `  ${position} ${retracted ? "retracts" : type} ${revises ?? ""} ${JSON.stringify(data)}`
          )
          const how = alone === undefined ? "beside others only" : "also alone"
          return [`history ${number}, seed ${seedOf(number)}, is wrong ${how}: lawOf([${number}])`, ...lines].join("\n")
        }))
      return yield* new HistoryWrong({
        numbers: wrong,
        message: [broken.message, `${wrong.length} histories are wrong`, ...told].join("\n")
      })
    })))

/** Ten thousand take minutes. */
const histories = Config.Int("STRATA_TEST_HISTORIES").pipe(Config.withDefault(2000))

layer(Layer.fresh(Application), { excludeTestServices: true })("conversations' projections", (it) => {
  it.effect(
    "live with corrections, rebuilt from scratch and replayed as known now are the same, whatever the history",
    () => Effect.flatMap(histories, (count) => lawOf(Arr.range(1, count))),
    600_000
  )
})

/** The corrections of one conversation are passed over. */
const careless = (number: number): ReadonlyArray<Projection> =>
  ConversationProjections.slice(0, 2).map((projection) => ({
    ...projection,
    wants: (fact) =>
      projection.wants(fact) && (fact.revision === 0 || fact.stream !== streamId("conversation", `c${number}`))
  }))

layer(Layer.fresh(Application), { excludeTestServices: true })("the law of histories", (it) => {
  it.effect("names the history that breaks it, with its seed and its facts", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(lawOf(Arr.range(1, 40), careless(17)))
      assert.instanceOf(error, HistoryWrong)
      assert.deepStrictEqual(error.numbers, [17])
      assert.include(error.message, `history 17, seed ${seedOf(17)}, is wrong also alone`)
      assert.include(error.message, "MessageSent")
      assert.deepStrictEqual(yield* narrow(Arr.range(11, 30), careless(17)), [17])
    }), 120_000)
})
