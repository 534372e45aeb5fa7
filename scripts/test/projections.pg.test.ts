import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { ConversationId, MessageId, UserId } from "@strata/conversations/domain/Conversation"
import * as Conversations from "@strata/conversations/write/Conversations"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { streamId } from "@strata/event-store/Fact"
import * as Postgres from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import { migrations } from "@strata/server/Server"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Operate from "../projections.ts"
import * as Replay from "../replay.ts"
import { ending, runProgram, startProgram } from "./runProgram.ts"

const Database = Conversations.layer().pipe(
  Layer.provideMerge(EventStorePostgres.layer({ summarize: false })),
  Layer.provideMerge(PostgresTest.layer({ migrations })),
  Layer.merge(NodeServices.layer)
)

const projections = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(PostgresTest.url, (url) => runProgram(Operate.program, url, ...args))
const replay = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(PostgresTest.url, (url) => runProgram(Replay.program, url, ...args))

const decodeLine = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Record(Schema.String, Schema.Unknown)))
const lines = (text: string) => text.trim().split("\n").map((line) => decodeLine(line))

const talk = Effect.fnUntraced(function*(name: string, messages: number) {
  const conversations = yield* Conversations.Conversations
  const ada = UserId.make("ada")
  yield* conversations.execute(ConversationId.make(name), [
    { _tag: "Start", at: Timestamp.fromMillis(0), participants: [{ userId: ada, role: "CUSTOMER" }] },
    ...Arr.makeBy(messages, (index): Conversations.Command => ({
      _tag: "Send",
      at: Timestamp.fromMillis(index * 60_000),
      messageId: MessageId.make(`m${index}`),
      senderId: ada,
      content: "hello"
    }))
  ])
})

layer(Database, { excludeTestServices: true })("projections by program", (it) => {
  it.effect(
    "are rebuilt, compared, switched back, dropped, paused and resumed",
    () =>
      Effect.gen(function*() {
        const { sql } = yield* Postgres.Postgres
        yield* talk("a", 30)
        const first = yield* projections("rebuild", "messages", "unread", "--json")
        assert.strictEqual(first.exitCode, 0, first.stderr)
        deepStrictEqual(lines(first.stdout).filter(({ type }) => type === "done"), [
          { type: "done", projection: "messages", generation: 2, state: "live", parked: 0 },
          { type: "done", projection: "unread", generation: 2, state: "live", parked: 0 }
        ])
        const listed = lines((yield* projections("list", "--json")).stdout)
        assert.deepInclude(listed.find(({ name }) => name === "messages"), { version: 1, lag: "0", parked: 0 })

        const manual = yield* projections("rebuild", "messages", "--manual")
        assert.include(manual.stdout, "messages: generation 3 is building")
        const equal = yield* projections("verify", "messages")
        deepStrictEqual(equal, { stdout: "messages: generation 3 is equal to 2\n", stderr: "", exitCode: 0 })
        const [{ schema } = { schema: "" }] = yield* sql<{ schema: string }>`
          select schema from projection_generation where name = 'messages' and number = 3`
        yield* sql`update ${sql(schema)}.conversation_message set content = 'other' where message_id = 'm7'`
        const different = yield* projections("verify", "messages")
        assert.strictEqual(different.exitCode, 3)
        assert.include(different.stdout, "conversation_message: 1 keys differ: default/a")

        assert.include((yield* projections("switch", "messages")).stdout, "see generation 3")
        assert.include((yield* projections("rollback", "messages")).stdout, "see generation 2 again")
        assert.include((yield* projections("drop", "messages", "3")).stdout, "Generation 3 of messages is gone")
        const live = yield* projections("drop", "messages", "2")
        deepStrictEqual([live.exitCode, live.stdout], [1, ""])
        assert.include(live.stderr, "readers see generation 2")

        assert.strictEqual((yield* projections("pause", "messages")).exitCode, 0)
        assert.include((yield* projections("status", "messages")).stdout, "paused")
        assert.strictEqual((yield* projections("resume", "messages")).exitCode, 0)
        assert.notInclude((yield* projections("status", "messages")).stdout, "paused")
      }),
    120_000
  )

  it.effect(
    "tell wrong usage with 2, and of several that cannot all be done with 5",
    () =>
      Effect.gen(function*() {
        for (const args of [["rebuild"], ["rebuild", "nothing"], ["skip", "messages"], ["drop", "messages", "x"]]) {
          assert.strictEqual((yield* projections(...args)).exitCode, 2, args.join(" "))
        }
        for (const args of [[], ["nothing"], ["messages", "--known-at", "monday"], ["messages", "--from", "x"]]) {
          assert.strictEqual((yield* replay(...args)).exitCode, 2, args.join(" "))
        }
        const some = yield* projections("rollback", "messages", "response-times")
        assert.strictEqual(some.exitCode, 5)
        assert.include(some.stdout, "Readers of messages see")
        assert.include(some.stderr, "response-times: there is no generation to go back to")
      }),
    120_000
  )

  it.effect(
    "show keys that are parked, and let them go on",
    () =>
      Effect.gen(function*() {
        const { sql } = yield* Postgres.Postgres
        const [{ id, position } = { id: 0, position: 0n }] = yield* sql<{ id: number; position: bigint }>`
          select id, (select head from store where name = 'default') as position
          from projection_generation where name = 'messages' and state = 'live'`
        yield* sql`
          insert into projection_parked (generation, key, columns, position, tenant, stream, error, attempts)
          values (${id}, 'default/a', '{default,a}', ${position}, 'default', 'conversation-a', 'the disk was full', 3)`
        const parked = yield* projections("park", "messages", "--json")
        assert.deepInclude(lines(parked.stdout)[0], { key: "default/a", error: "the disk was full", attempts: 3 })
        const unknown = yield* projections("retry", "messages", "default/b")
        deepStrictEqual([unknown.exitCode, unknown.stderr], [1, "Key default/b of projection messages does not wait\n"])
        deepStrictEqual(yield* projections("retry", "messages"), {
          stdout: "messages default/a goes on\n",
          stderr: "",
          exitCode: 0
        })
        assert.strictEqual((yield* projections("park", "messages")).stdout, "")
      }),
    120_000
  )

  it.effect(
    "are replayed as known at a time, next to what is known now",
    () =>
      Effect.gen(function*() {
        const store = yield* EventStore
        const { sql } = yield* Postgres.Postgres
        const before = yield* store.head
        const fact = (yield* store.readStream(streamId("conversation", "a"))).find(({ type }) => type === "MessageSent")
        yield* store.revise({ _tag: "Retraction", revises: fact!.eventId, reason: "spam", actor: "ada" })
        assert.strictEqual((yield* projections("rebuild", "messages")).exitCode, 0)

        const dry = yield* replay("messages", "--known-at", String(before), "--dry-run")
        assert.include(dry.stdout, "could be applied")
        const then = yield* replay("messages", "--known-at", String(before), "--compare", "--json")
        assert.strictEqual(then.exitCode, 0, then.stderr)
        const done = lines(then.stdout).at(-1)!
        assert.deepInclude(done, { type: "done", projection: "messages", into: `replay_messages_${before}` })
        deepStrictEqual(done["tables"], [{ table: "conversation_message", rows: "30", onlyThen: "1", onlyNow: "0" }])
        const now = yield* replay("messages", "--into", "as_now", "--compare")
        assert.include(
          now.stdout,
          "conversation_message: 29 rows, of which 0 are otherwise now; 0 rows now were not so then"
        )
        const part = yield* replay("messages", "--into", "a_part", "--to", "11")
        assert.strictEqual(part.exitCode, 0, part.stderr)
        deepStrictEqual(yield* sql`select count(*) as messages from a_part.conversation_message`, [{ messages: 9n }])
        const taken = yield* replay("messages", "--into", "a_part", "--to", "12")
        deepStrictEqual([taken.exitCode, taken.stdout], [1, ""])
        assert.include(taken.stderr, "The schema a_part is there already")
      }),
    120_000
  )

  it.effect(
    "go on with the command that an interrupted replay says",
    () =>
      Effect.gen(function*() {
        const { sql } = yield* Postgres.Postgres
        const store = yield* EventStore
        yield* Effect.forEach(Arr.range(1, 60), (number) => talk(`many ${number}`, 200), {
          concurrency: 4,
          discard: true
        })
        const url = yield* PostgresTest.url
        const child = yield* startProgram(new URL("../replay.ts", import.meta.url), url, "unread")
        const begun = sql<
          { position: bigint }
        >`select position from projection_replay where name = 'unread' and position > 0`
        yield* Effect.repeat(begun, { until: (rows) => rows.length > 0, schedule: Schedule.spaced("5 millis") })
        yield* Effect.sync(() => process.kill(child.pid, "SIGINT"))
        const { exitCode, stderr } = yield* ending(child)
        assert.strictEqual(exitCode, 130)
        const [, command] = /Go on with: npm run replay -- (.*)\n/.exec(stderr) ?? []
        assert.strictEqual(command, `unread --known-at ${yield* store.head} --into replay_unread_${yield* store.head}`)
        const [left] = yield* begun
        assert.isBelow(Number(left!.position), Number(yield* store.head))
        assert.strictEqual((yield* replay(...command!.split(" "))).exitCode, 0)
        assert.strictEqual((yield* begun)[0]!.position, yield* store.head)
      }).pipe(Effect.scoped),
    120_000
  )
})
