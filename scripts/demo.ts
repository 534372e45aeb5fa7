/**
 * Shows what Strata does with a small archive: `npm run demo`.
 *
 * The messages of an invented pottery workshop are imported through the command handlers into an embedded PostgreSQL that
 * is thrown away afterwards.
 */
import { ConversationQueries } from "@strata/conversations/read/ConversationQueries"
import { EventStore } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Command from "effect/cli/Command"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import { application } from "./application.ts"
import { run } from "./program.ts"
import { demoArchive, packFolder } from "./zulip/packArchive.ts"
import { topicFiles } from "./zulip/ZulipArchive.ts"
import { describeSummary, importTopics } from "./zulip/ZulipImport.ts"

const day = (time: Timestamp.Timestamp) => Timestamp.format(time).slice(0, 16).replace("T", " ")

const show = Effect.gen(function*() {
  const queries = yield* ConversationQueries
  const store = yield* EventStore
  yield* Console.log("\nConversations, the last active first:")
  for (const { context, lastMessage, messageCount, participantCount } of (yield* queries.list({})).conversations) {
    const topic = String(context.metadata?.["zulipTopic"] ?? "")
    const last = lastMessage === null ? "never" : day(lastMessage.sentAt)
    yield* Console.log(`  ${topic.padEnd(28)} ${messageCount} messages by ${participantCount}, last ${last}`)
  }
  yield* Console.log("\nThe first facts of the log, with both clocks:")
  for (const fact of yield* store.readLog({ after: Fact.beginning, limit: 6 })) {
    yield* Console.log(
      `  ${String(fact.position).padStart(2)} ${fact.type.padEnd(19)} happened ${day(fact.validFrom)}, recorded ${
        day(fact.recordedAt)
      }`
    )
  }
})

const command = Command.make("demo").pipe(
  Command.withDescription("Import the demo archive into a throw-away database and show what is in it"),
  Command.withHandler(Effect.fnUntraced(function*() {
    const fs = yield* FileSystem.FileSystem
    const directory = yield* fs.makeTempDirectoryScoped({ prefix: "strata-demo-" })
    yield* fs.chmod(directory, 0o711)
    const file = `${directory}/workshop.tar.gz`
    yield* packFolder(demoArchive, file)
    yield* Console.log("Importing the messages of a pottery workshop into a PostgreSQL of their own …")
    yield* Effect.gen(function*() {
      const { summary } = yield* importTopics(topicFiles(file, () => {}))
      yield* Console.log(describeSummary(summary))
      yield* show
    }).pipe(
      Effect.provide(application.pipe(
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ STRATA_DATA_DIR: directory })))
      ))
    )
  }, Effect.scoped))
)

run(command)
