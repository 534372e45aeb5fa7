/**
 * Moves old facts to tables of their own, which may stand on another disk, while the store is read and written.
 *
 * **Details**
 *
 * A partition is a table that inherits from `fact` and has its indexes, so every question is answered from all of them and
 * every append is judged by all of them. Each has to be looked into, so few large partitions are better than many small
 * ones: an append looks up its stream and its event id once more for each.
 *
 * Facts move in order, some thousands in a transaction. Readers see each of them at one place at any moment, and nobody waits.
 * It can be interrupted at any time, and goes on where it was when it is called again.
 *
 * **Gotchas**
 *
 * Tables are made and filled by the user of the connection, who must own `fact`, whatever `PostgresOptions.role` says.
 *
 * **Example** (Everything but the last ten million facts)
 *
 * ```ts
 * import * as Fact from "@strata/event-store/Fact"
 * import * as FactPartitions from "@strata/event-store/FactPartitions"
 *
 * const archive = (head: Fact.Position) =>
 *   FactPartitions.move({ upTo: Fact.Position.make(head - 10_000_000n), partition: "fact_2025", tablespace: "archive" })
 * ```
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import type { Position } from "./Fact.ts"

/**
 * What to move, and where to.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Name of the store. Default: `default`. */
  readonly store?: string | undefined
  /** Facts up to this position, which is included. */
  readonly upTo: Position
  /** The partition, made when it is not there: lower-case letters, digits and `_`, beginning with `fact_`. */
  readonly partition: string
  /** Where a new partition is kept. Default: where the database is. */
  readonly tablespace?: string | undefined
}

/**
 * What cannot be moved: `path` names the option, `message` says what is wrong with it. Nothing was changed.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidMove extends Schema.TaggedError<InvalidMove>()("InvalidMove", {
  path: Schema.Literals(["store", "upTo", "partition", "tablespace"]),
  message: Schema.String
}) {}

/** Facts moved by one transaction. */
const step = 10_000n

/**
 * Moves facts, and tells how many.
 *
 * @category constructors
 * @since 0.1.0
 */
export const move = Effect.fn("FactPartitions.move")(function*(
  options: Options
): Effect.fn.Return<bigint, InvalidMove | SqlError | TransactionError, Postgres> {
  const { sql, transact } = yield* Postgres
  const { partition, tablespace, upTo } = options
  const store = yield* check(options)
  const table = sql(partition)
  const asOwner = <A, E>(body: Effect.Effect<A, E>) => transact(Effect.andThen(sql`set local role none`, body))

  // Takes its locks for a moment. Who may ask for facts asks `fact`: nobody is granted the partition itself.
  const make = Effect.gen(function*() {
    const [found] = yield* sql<{ inherits: boolean }>`
      select exists (
        select from pg_inherits i where i.inhrelid = c.oid and i.inhparent = 'fact'::regclass
      ) as inherits
      from pg_class c where c.oid = to_regclass(${partition})`
    if (found?.inherits === false) return yield* invalid("partition", `${partition} is a table that holds no facts`)
    if (found !== undefined) return
    if (tablespace !== undefined) {
      const known = yield* sql`select from pg_tablespace where spcname = ${tablespace}`
      if (known.length === 0) return yield* invalid("tablespace", `There is no tablespace ${tablespace}`)
    }
    yield* sql`
      create table ${table} (like fact including all) inherits (fact)
      ${tablespace === undefined ? sql`` : sql`tablespace ${sql(tablespace)}`}`
    // Like that of `fact`, but that only who sees all tenants writes it.
    yield* sql`
      create policy ${sql(`${partition}_of_tenant`)} on ${table}
      using (tenant = (select tenant_in_scope()) or (select all_tenants_in_scope()))
      with check ((select all_tenants_in_scope()))`
    yield* sql`alter table ${table} enable row level security, force row level security`
  })

  // Served by the primary key of fact. What is moved is locked by nobody else: facts are neither changed nor removed.
  const moveSome = asOwner(Effect.gen(function*() {
    yield* sql`select set_config('strata.tenant', '', true), set_config('strata.all_tenants', 'on', true)`
    const [first] = yield* sql<{ position: Position }>`
      select position from only fact where store = ${store} order by position limit 1`
    if (first === undefined || first.position > upTo) return 0n
    yield* make
    const last = first.position + step - 1n
    const [moved] = yield* sql<{ facts: bigint }>`
      with moved as (
        delete from only fact
        where store = ${store} and position >= ${Pg.bigint(first.position)}
          and position <= ${Pg.bigint(last < upTo ? last : upTo)}
        returning *
      ), kept as (
        insert into ${table} select * from moved returning 1
      )
      select count(*) as facts from kept`
    return moved!.facts
  }))

  let total = 0n
  for (let moved = yield* moveSome; moved > 0n; moved = yield* moveSome) total += moved
  if (total > 0n) yield* asOwner(sql`analyze ${table}`)
  return total
})

/** Gives the id of the store. */
const check = Effect.fnUntraced(function*({ partition, store: name = "default", upTo }: Options) {
  const { sql } = yield* Postgres
  if (!/^fact_[a-z0-9_]{1,40}$/.test(partition)) {
    return yield* invalid("partition", `${partition} is not "fact_" and 1 to 40 lower-case letters, digits and "_"`)
  }
  const [store] = yield* sql<{ id: number; head: Position }>`select id, head from store where name = ${name}`
  if (store === undefined) return yield* invalid("store", `There is no store ${name}`)
  if (upTo > store.head) return yield* invalid("upTo", `The last position is ${store.head}, not ${upTo}`)
  return store.id
})

const invalid = (path: InvalidMove["path"], message: string) => Effect.fail(new InvalidMove({ path, message }))
