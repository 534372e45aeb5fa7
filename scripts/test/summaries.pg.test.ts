import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as Postgres from "@strata/postgres/Postgres"
import { migrations } from "@strata/server/Server"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { program } from "../summaries.ts"
import { runProgram } from "./runProgram.ts"

const Database = EventStorePostgres.layer({ summarize: false }).pipe(
  Layer.provideMerge(PostgresTest.layer({ migrations })),
  Layer.merge(NodeServices.layer)
)

const runSummaries = (args: ReadonlyArray<string>) =>
  Effect.flatMap(PostgresTest.url, (url) => runProgram(program, url, ...args))

layer(Database, { excludeTestServices: true })("the summaries of a log by program", (it) => {
  it.effect(
    "drift is told a line each with exit code 3, and is gone when they are made anew",
    () =>
      Effect.gen(function*() {
        const { sql } = yield* Postgres.Postgres
        const store = yield* EventStore
        const fact = { stream: Fact.streamId("account", "ada"), type: "Told", data: {} }
        yield* store.append({ facts: Array.from({ length: 600 }, () => fact) })
        deepStrictEqual(yield* runSummaries(["rebuild"]), { stdout: "{\"upTo\":\"512\"}\n", stderr: "", exitCode: 0 })
        const right = { stdout: "{\"upTo\":\"512\",\"chunks\":0,\"counts\":0}\n", stderr: "", exitCode: 0 }
        deepStrictEqual(yield* runSummaries(["verify"]), right)

        yield* sql`update fact_chunk set labels = '{}' where number = 1`
        yield* sql`update fact_count set streams = 2`
        const count = { tenant: "default", category: "account", type: "Told" }
        const { exitCode, stderr, stdout } = yield* runSummaries(["verify"])
        deepStrictEqual([exitCode, stderr], [3, ""])
        deepStrictEqual(stdout.trim().split("\n").map((line): unknown => JSON.parse(line)), [
          { number: "1", what: "labels" },
          { ...count, summarized: { facts: "512", streams: "2" }, found: { facts: "512", streams: "1" } },
          { upTo: "512", chunks: 1, counts: 1 }
        ])
        deepStrictEqual((yield* runSummaries(["rebuild"])).exitCode, 0)
        deepStrictEqual(yield* runSummaries(["verify"]), right)

        const unknown = yield* runSummaries(["verify", "--store", "none"])
        deepStrictEqual([unknown.exitCode, unknown.stderr], [1, "There is no store none\n"])
        assert.strictEqual((yield* runSummaries(["look"])).exitCode, 2)
      }),
    60_000
  )
})
