/**
 * Tests of projections: given facts, when they are projected, then rows; and the law that every projection keeps.
 *
 * **When to use**
 *
 * Use `project` for what a projection makes of some facts, and `law` with histories that are as wild as they can be: facts that
 * are corrected, retracted, corrected again, and subjects that are erased, while the projection runs.
 *
 * **Details**
 *
 * The law: *projecting live with corrections = rebuilding from scratch = replaying what is known now*. The three come to
 * their tables on ways of their own: batch by batch as facts came, in pages of the whole log, and from the belief alone.
 *
 * Both need a store on a database of its own: see `PostgresTest`.
 *
 * **Example** (What a projection makes of two facts)
 *
 * ```ts
 * import * as ProjectionTest from "@strata/testing/ProjectionTest"
 *
 * const rows = yield* ProjectionTest.project(Deposits, [deposited(5), deposited(7)], "deposit_count")
 * assert.deepStrictEqual(rows, [{ tenant: "default", stream: "account-1", deposits: 2 }])
 * ```
 *
 * @since 0.1.0
 */
import { EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import type { NewFact } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import type { Projection } from "@strata/projections/Projection"
import * as Projections from "@strata/projections/Projections"
import * as Replay from "@strata/projections/Replay"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"

/**
 * The law is broken: of one projection, two ways did not come to the same. `rows` are those of one of the two only, each with the
 * name of its table, the first thousand.
 *
 * @category errors
 * @since 0.1.0
 */
export class LawBroken extends Schema.TaggedError<LawBroken>("@strata/testing/LawBroken")("LawBroken", {
  projection: Schema.String,
  detail: Schema.String,
  rows: Schema.Array(Schema.String)
}) {
  override get message() {
    return `Projection ${this.projection} breaks the law: ${this.detail}`
  }
}

/**
 * Appends facts, runs a projection to the end of the log, and gives the rows of a table of it, in the order of their text.
 *
 * @category constructors
 * @since 0.1.0
 */
export const project = Effect.fnUntraced(function*(
  projection: Projection,
  facts: ReadonlyArray<NewFact>,
  table: string
): Effect.fn.Return<
  ReadonlyArray<{ readonly [column: string]: unknown }>,
  EventStoreError | SqlError | Projections.ProjectionBehind,
  EventStore | Postgres
> {
  const store = yield* EventStore
  const { sql } = yield* Postgres
  if (facts.length > 0) yield* store.append({ facts })
  yield* Effect.scoped(Effect.gen(function*() {
    const context = yield* Layer.build(Projections.layer([projection]))
    yield* Context.get(context, Projections.Projections).catchUp()
  }))
  return yield* sql`select t.* from ${sql(table)} as t order by t::text collate "C"`
})

/**
 * Holds projections to the law while a history is written. They run with small batches; then each is built again, and replayed.
 *
 * @category constructors
 * @since 0.1.0
 */
export const law = Effect.fnUntraced(function*<E, R>(
  projections: ReadonlyArray<Projection>,
  write: Effect.Effect<unknown, E, R>,
  options: { readonly batchSize?: number | undefined } = {}
): Effect.fn.Return<
  void,
  E | LawBroken | Projections.StatusError | Projections.ProjectionBehind | Replay.ReplayError,
  R | EventStore | Postgres
> {
  const { batchSize = 3 } = options
  const { live, rebuilt } = yield* Effect.scoped(Effect.gen(function*() {
    const context = yield* Layer.build(Projections.layer(projections, { batchSize }))
    const service = Context.get(context, Projections.Projections)
    yield* write
    yield* service.catchUp({ timeout: "10 minutes" })
    for (const { error, name, parked } of yield* service.status) {
      if (parked > 0) {
        const keys = (yield* Effect.orDie(service.operate.parked(name))).map(({ key }) => key)
        return yield* new LawBroken({
          projection: name,
          detail: `facts of ${parked} keys were put aside: ${error}`,
          rows: keys.slice(0, mostRows)
        })
      }
    }
    const live = yield* contentsOf(service)
    yield* Effect.forEach(projections, ({ name }) => Effect.orDie(service.operate.rebuild(name)))
    yield* Effect.repeat(service.status, {
      until: (all) => all.every(({ generations }) => generations.at(-1)?.state === "live"),
      schedule: Schedule.spaced("200 millis")
    })
    return { live, rebuilt: yield* contentsOf(service) }
  }))
  for (const projection of projections) {
    const { name } = projection
    yield* compare(name, "rebuilt", live.get(name), rebuilt.get(name))
    const into = `law_${name}`
    yield* Replay.run(projection, { into })
    yield* compare(name, "replayed", live.get(name), yield* rowsOf(into))
    yield* Replay.drop(into)
  }
})

/** Of each projection: all rows of all tables that readers see, as lines. */
const contentsOf = Effect.fnUntraced(function*(service: Projections.Projections["Service"]) {
  const contents = new Map<string, ReadonlyArray<string>>()
  for (const { generations, name } of yield* service.status) {
    const live = generations.find(({ state }) => state === "live")
    if (live !== undefined) contents.set(name, yield* rowsOf(live.schema))
  }
  return contents
})

const rowsOf = Effect.fnUntraced(function*(schema: string) {
  const { sql } = yield* Postgres
  const tables = yield* sql<{ name: string }>`
    select tablename::text as name from pg_tables where schemaname = ${schema} order by tablename`
  const rows = yield* Effect.forEach(tables, ({ name }) =>
    Effect.map(
      sql<{ row: string }>`select t::text as row from ${sql(schema)}.${sql(name)} as t`,
      (rows) => rows.map(({ row }) => `${name} ${row}`)
    ))
  return rows.flat()
})

const compare = (
  projection: string,
  how: string,
  live: ReadonlyArray<string> = [],
  other: ReadonlyArray<string> = []
): Effect.Effect<void, LawBroken> => {
  const lines = new Set(other)
  const missing = live.filter((line) => !lines.delete(line)).toSorted()
  const surplus = [...lines].toSorted()
  if (missing.length === 0 && surplus.length === 0 && live.length === other.length) return Effect.void
  const shown = (what: string, lines: ReadonlyArray<string>) =>
    lines.slice(0, 5).map((line) => `\n  ${what}: ${line}`).join("")
  return Effect.fail(
    new LawBroken({
      projection,
      detail: `${missing.length} rows are live only, ${surplus.length} ${how} only${shown("live", missing)}${
        shown(how, surplus)
      }`,
      rows: [...missing, ...surplus].slice(0, mostRows)
    })
  )
}

const mostRows = 1000
