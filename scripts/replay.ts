/**
 * A read model as it was known at a past moment, in tables of its own:
 * `npm run --silent replay -- NAME [--known-at T] [--valid-at T] [--from P] [--to P] [--into SCHEMA] [--dry-run] [--compare] [--json]`.
 *
 * Moments are times like 2026-01-31T10:00:00Z, or positions of the log. With `--json` every line on standard output is an object:
 * how far it is, and at the end what came out. It can be interrupted, and goes on when it is run again as it says then. Exit
 * codes: 0 done, 1 failed, 2 usage, 130 interrupted.
 */
import { ConversationProjections } from "@strata/conversations/read/ConversationProjections"
import { EventStore } from "@strata/event-store/EventStore"
import { Position } from "@strata/event-store/Fact"
import { KnownAt } from "@strata/http-api/EventStoreQuery"
import { Postgres } from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Replay from "@strata/projections/Replay"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { projections } from "./application.ts"
import { fraction, print, progressBar } from "./output.ts"
import { run } from "./program.ts"

const position = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withSchema(Schema.BigIntFromString.pipe(Schema.decodeTo(Position))),
    Flag.withDescription(description),
    Flag.optional
  )

const parameters = {
  name: Argument.Literals("NAME", ConversationProjections.map(({ name }) => name)).pipe(
    Argument.withDescription("The projection")
  ),
  knownAt: Flag.String("known-at").pipe(
    Flag.withSchema(KnownAt),
    Flag.withDescription("What was known at this time or position. Default: now"),
    Flag.optional
  ),
  validAt: Flag.String("valid-at").pipe(
    Flag.withSchema(Timestamp.Timestamp),
    Flag.withDescription("Only facts whose period holds this time"),
    Flag.optional
  ),
  from: position("from", "Only facts that were first recorded at this position or after it"),
  to: position("to", "Only facts that were first recorded at this position or before it"),
  into: Flag.String("into").pipe(
    Flag.withDescription("The PostgreSQL schema to be made. Default: replay_NAME_POSITION"),
    Flag.optional
  ),
  dryRun: Flag.Boolean("dry-run").pipe(
    Flag.withDescription("Apply everything, and leave nothing behind"),
    Flag.withDefault(false)
  ),
  compare: Flag.Boolean("compare").pipe(
    Flag.withDescription("Count the rows that differ from what readers see now"),
    Flag.withDefault(false)
  ),
  json: Flag.Boolean("json").pipe(Flag.withDescription("Print lines of JSON"), Flag.withDefault(false))
}

type Options = Command.Command.Config.Infer<typeof parameters>

const replay = Effect.fnUntraced(function*(options: Options) {
  const { dryRun, json, name } = options
  const projection = ConversationProjections.find((each) => each.name === name)
  if (projection === undefined) return yield* Effect.die(new RangeError(`There is no projection named ${name}`))
  const store = yield* EventStore
  const knownAt = yield* Option.match(options.knownAt, { onNone: () => store.head, onSome: store.positionAt })
  const into = Option.getOrElse(options.into, () => `replay_${name.replaceAll("-", "_")}_${knownAt}`)
  const bar = progressBar(process.stderr)
  const result = yield* Replay.run(projection, {
    into,
    dryRun,
    knownAt: { position: knownAt },
    validAt: Option.getOrUndefined(options.validAt),
    from: Option.getOrUndefined(options.from),
    to: Option.getOrUndefined(options.to),
    onProgress: (progress) =>
      json
        ? print({ type: "progress", ...progress })
        : Effect.sync(() => bar.show(fraction(progress.position, progress.last), `${progress.facts} facts`))
  }).pipe(
    Effect.onInterrupt(() => dryRun ? Effect.void : Console.error(goOn(options, knownAt, into))),
    Effect.ensuring(Effect.sync(bar.clear))
  )
  const tables = dryRun || !options.compare ? [] : yield* compare(into)
  if (json) {
    return yield* print({ type: "done", projection: name, dryRun, ...result, ...options.compare ? { tables } : {} })
  }
  yield* Console.log(
    dryRun
      ? `${result.facts} facts could be applied, as known at position ${result.knownAt}; nothing was kept`
      : `${result.facts} facts were applied, as known at position ${result.knownAt}: see the tables of the schema ${into}`
  )
  for (const { onlyNow, onlyThen, rows, table } of tables) {
    yield* Console.log(
      `${table}: ${rows} rows, of which ${onlyThen} are otherwise now; ${onlyNow} rows now were not so then`
    )
  }
})

/** The command that goes on where this one was interrupted. */
const goOn = ({ from, name, to, validAt }: Options, knownAt: bigint, into: string) =>
  [
    `Go on with: npm run replay -- ${name} --known-at ${knownAt} --into ${into}`,
    ...Option.toArray(validAt).map((time) => `--valid-at ${Timestamp.format(time)}`),
    ...Option.toArray(from).map((first) => `--from ${first}`),
    ...Option.toArray(to).map((last) => `--to ${last}`)
  ].join(" ")

/** Rows of a replay's tables, next to those that readers see by the same names. Reads both whole. */
const compare = Effect.fnUntraced(function*(into: string) {
  const { schema, sql } = yield* Postgres
  const tables = yield* sql<{ name: string }>`
    select t.tablename::text as name from pg_tables t
    join pg_views v on v.schemaname = ${schema} and v.viewname = t.tablename
    where t.schemaname = ${into} order by t.tablename`
  return yield* Effect.forEach(tables, ({ name }) => {
    const [then, now] = [sql`${sql(into)}.${sql(name)}`, sql`${sql(schema)}.${sql(name)}`]
    return Effect.map(
      sql<{ rows: bigint; onlyThen: bigint; onlyNow: bigint }>`
        select (select count(*) from ${then}) as rows,
          (select count(*) from (select * from ${then} except all select * from ${now}) as t) as "onlyThen",
          (select count(*) from (select * from ${now} except all select * from ${then}) as t) as "onlyNow"`,
      ([row]) => ({ table: name, ...row! })
    )
  })
})

export const program = Command.make("replay", parameters).pipe(
  Command.withDescription("Fill tables of their own with what was known at one moment"),
  Command.withHandler((options) => replay(options).pipe(Effect.provide(projections(false))))
)

if (import.meta.main) run(program)
