import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { strictEqual } from "@effect/vitest/utils"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as Postgres from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import { migrations } from "@strata/server/Server"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { program } from "../move-facts.ts"
import { runProgram } from "./runProgram.ts"

const Database = EventStorePostgres.layer().pipe(
  Layer.provideMerge(PostgresTest.layer({ migrations })),
  Layer.merge(NodeServices.layer)
)

const runMove = (args: ReadonlyArray<string>) =>
  Effect.flatMap(PostgresTest.url, (url) => runProgram(program, url, ...args))

layer(Database, { excludeTestServices: true })("moving facts by program", (it) => {
  it.effect(
    "moves those recorded before a time, and refuses what makes no sense in one line",
    () =>
      Effect.gen(function*() {
        const { sql } = yield* Postgres.Postgres
        const store = yield* EventStore
        const stream = Fact.streamId("account", "ada")
        const fact = { stream, type: "Told", data: {} }
        const { recordedAt } = yield* store.append({ facts: [fact, fact] })
        yield* store.append({ facts: [fact] })
        const before = Timestamp.format(recordedAt)

        const refused = yield* runMove(["accounts", "--before", before])
        strictEqual(refused.exitCode, 1)
        assert.match(refused.stderr, /^accounts is not "fact_"[^\n]*\n$/)
        const later = yield* runMove(["fact_old", "--before", "2999-01-01T00:00:00Z"])
        strictEqual(later.exitCode, 1)
        assert.match(later.stderr, /^that moment has not passed yet\n$/)
        strictEqual((yield* runMove(["fact_old", "--before", "soon"])).exitCode, 2)

        const moved = yield* runMove(["fact_old", "--before", before])
        strictEqual(moved.stdout, "2 facts were moved to fact_old\n", moved.stderr)
        const [row] = yield* sql<{ n: bigint }>`select count(*) as n from fact_old`
        strictEqual(row!.n, 2n)
        strictEqual((yield* store.readStream(stream)).length, 3)

        // Projections and all else are the servers' work.
        strictEqual(moved.stderr, "")
        strictEqual((yield* sql`select name from projection_generation`).length, 0)
      }),
    { timeout: 60_000 }
  )
})
