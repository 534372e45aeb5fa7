/**
 * A process that writes about a subject.
 *
 * Arguments: store, what, subject, name. Prints `ready` and waits for a line. To `append` it appends one saying, and prints `done`. To
 * `hold` it makes the subject's key without waiting, prints `held`, and does nothing more.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as SubjectKeys from "@strata/event-store/SubjectKeys"
import * as Postgres from "@strata/postgres/Postgres"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { id, lobby, masterKey, said } from "../chatRoom.ts"

const [store = "default", what = "append", subject = "u1", name = "1"] = process.argv.slice(2)

const print = (line: string) => Effect.sync(() => void process.stdout.write(`${line}\n`))

const program = Effect.gen(function*() {
  const { append } = yield* EventStore
  const stdio = yield* Stdio.Stdio
  const line = Stream.runHead(stdio.stdin)
  if (what === "hold") {
    const keys = yield* SubjectKeys.SubjectKeys
    const { seal } = yield* keys.sealing({ store, told: (_, position) => Effect.succeed(position) })
    const personal = [{ subject, fields: ["text"] }]
    yield* seal("default", [{ path: "data", stream: lobby, eventId: id(1), data: { text: "never said" }, personal }])
    yield* print("held")
    return yield* Effect.asVoid(line)
  }
  yield* print("ready")
  yield* line
  yield* append({ facts: [said(subject, `said by ${name}`)] })
  yield* print("done")
})

const Database = Layer.unwrap(
  Effect.map(Config.Redacted("DATABASE_URL"), (url) => Postgres.layer({ url, maxConnections: 5 }))
)

program.pipe(
  Effect.provide(
    EventStorePostgres.layer({ name: store }).pipe(
      Layer.provideMerge(SubjectKeys.layer({ masterKey: masterKey("2026") })),
      Layer.provide(Database),
      Layer.merge(NodeStdio.layer)
    )
  ),
  NodeRuntime.runMain
)
