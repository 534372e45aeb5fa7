/**
 * Moves old facts to a partition: `npm run --silent move:facts -- PARTITION --before TIME [--tablespace NAME] [--store NAME]`.
 *
 * Prints how many were moved. It can be interrupted, and run again, at any time, while servers use the database.
 * Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted.
 */
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as FactPartitions from "@strata/event-store/FactPartitions"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import { application } from "./application.ts"
import { run } from "./program.ts"

const command = Command.make("move:facts", {
  partition: Argument.String("PARTITION").pipe(
    Argument.withDescription("The table to move them to, made when it is not there: fact_ and letters, digits or _")
  ),
  before: Flag.String("before").pipe(
    Flag.withSchema(Timestamp.TimestampFromString),
    Flag.withDescription("Facts recorded up to this time, as 2026-01-01T00:00:00Z")
  ),
  tablespace: Flag.String("tablespace").pipe(
    Flag.withDescription("Where a new partition is kept"),
    Flag.optional
  ),
  store: Flag.String("store").pipe(Flag.withDescription("Name of the store"), Flag.withDefault("default"))
}).pipe(
  Command.withDescription("Move old facts to a partition, where they stay readable"),
  Command.withHandler(Effect.fnUntraced(function*({ before, partition, store: name, tablespace }) {
    yield* Console.log(before, partition, name, tablespace)
  }))
)

run(command)
