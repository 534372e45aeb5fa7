/**
 * Moves old facts to a partition: `npm run --silent move:facts -- PARTITION --before TIME [--tablespace NAME]`.
 *
 * Prints how many were moved. It can be interrupted, and run again, at any time, while servers use the database.
 * Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted.
 */
import { EventStore } from "@strata/event-store/EventStore"
import * as FactPartitions from "@strata/event-store/FactPartitions"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { eventStore } from "./application.ts"
import { run } from "./program.ts"

export const program = Command.make("move:facts", {
  partition: Argument.String("PARTITION").pipe(
    Argument.withDescription("The table to move them to, made when it is not there: fact_, then letters, digits and _")
  ),
  before: Flag.String("before").pipe(
    Flag.withSchema(Timestamp.Timestamp),
    Flag.withDescription("Facts recorded up to this time, like 2026-01-01T00:00:00Z")
  ),
  tablespace: Flag.String("tablespace").pipe(
    Flag.withDescription("Where a new partition is kept"),
    Flag.optional
  )
}).pipe(
  Command.withDescription("Move old facts to a partition, where they stay readable"),
  Command.withHandler(({ before, partition, tablespace }) =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const upTo = yield* store.positionAt({ time: before })
      const moved = yield* FactPartitions.move({ upTo, partition, tablespace: Option.getOrUndefined(tablespace) })
      yield* Console.log(`${moved} facts were moved to ${partition}`)
    }).pipe(Effect.provide(eventStore))
  )
)

if (import.meta.main) run(program)
