/**
 * A projection: what turns facts into a read model.
 *
 * **When to use**
 *
 * Use `make` for tables that are filled by SQL, batch by batch. `KeyedProjection` is shorter where each key has one row that
 * is a fold of its facts, `ContributionsProjection` counts and sums over many keys, and `ProcessProjection` lets something
 * happen in the world.
 *
 * **Details**
 *
 * A projection is a value: a name, a version, the events it wants, its tables and what it does with a batch of facts. `apply`
 * runs in the transaction that also moves the checkpoint, so a fact takes effect exactly once. It should work on the whole
 * batch at once (`insert … select from unnest(…)`), and keep to the order of the batch where facts of one key depend on
 * each other.
 *
 * Tables are made in a PostgreSQL schema of their own; `apply` names them plainly, and so does who reads them: by views of
 * the same names. Raise `version` when tables or meaning change: the new tables are filled beside the old ones, and readers
 * are switched when they have caught up.
 *
 * **Corrections need no code.** When a fact of a key is revised, the runtime removes the key's rows and applies the key's
 * believed facts, in the order in which each was first recorded. So `apply` sees each fact as it is believed, and no
 * retracted ones. See `ProjectionKey` for what a key is, and which columns every table must have because of that.
 *
 * **Neither do erasures.** When a subject is erased (see `PersonalData`), the keys that have facts in its streams are made again in
 * the same way: `apply` sees `Erased` in the place of personal fields.
 *
 * **Inline or asynchronous.** By default facts are applied after their commit: writers wait for nothing, and who has to see a fact waits
 * for its position. With `inline` they are applied in the transaction that writes them, while the log is locked. Use it for the few
 * small tables that the next decision reads; what it costs is added to every append of the store, whoever makes it.
 *
 * **Gotchas**
 *
 * - Every process that writes to the store has to have the layer of an inline projection. Facts that another one has written are
 *   applied a moment after their commit, as if it were asynchronous, and never lost.
 * - A projection owns its tables: it writes no others, and reads no other projection's, since each is at a position of its own.
 * - Rows of one key are made of facts of that key alone. What sums up over keys is for `ContributionsProjection`.
 *
 * **Example** (Counting the deposits of each account)
 *
 * ```ts
 * import * as Pg from "@strata/postgres/PostgresTypes"
 * import * as Projection from "@strata/projections/Projection"
 * import * as Effect from "effect/Effect"
 * import * as SqlClient from "effect/sql/SqlClient"
 *
 * const Deposits = Projection.make({
 *   name: "deposits",
 *   events: AccountEvents,
 *   tables: `
 *     create table deposit_count (
 *       tenant text not null, stream text not null, deposits integer not null, primary key (tenant, stream)
 *     )`,
 *   apply: Effect.fnUntraced(function*(batch) {
 *     const sql = yield* SqlClient.SqlClient
 *     yield* sql`
 *       insert into deposit_count (tenant, stream, deposits)
 *       select tenant, stream, count(*) from unnest(
 *         ${Pg.textArray(batch.map(({ fact }) => fact.tenant))}, ${Pg.textArray(batch.map(({ fact }) => fact.stream))}
 *       ) as d(tenant, stream)
 *       group by tenant, stream
 *       on conflict (tenant, stream) do update set deposits = deposit_count.deposits + excluded.deposits`
 *   })
 * })
 * ```
 *
 * @since 0.1.0
 */
import type { EventDecodeError, EventSet } from "@strata/event-store/EventDefinition"
import { categoryOf, type Fact } from "@strata/event-store/Fact"
import type { LogFilter } from "@strata/event-store/FactQuery"
import { split } from "@strata/postgres/MigrationsStatements"
import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as ProjectionKey from "./ProjectionKey.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * An event and the fact that holds it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Projected<out Event> {
  readonly event: Event
  readonly fact: Fact
}

/**
 * A projection of any event type, as the runtime takes it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Projection {
  /** Names it in a store. At most 100 characters. */
  readonly name: string
  /** Another version means other tables or another meaning: it is built from the first fact. */
  readonly version: number
  /** Whether it is applied in the transactions that write facts, and not after them. */
  readonly inline: boolean
  /** The facts it wants: `filter` as the log is asked, `wants` exactly. */
  readonly filter: LogFilter
  readonly wants: (fact: Fact) => boolean
  readonly key: {
    readonly columns: ReadonlyArray<string>
    /** Whether a key is a stream: then its facts are found by that, and keys are shared among processes. */
    readonly isStream: boolean
    readonly of: (fact: Fact) => Result.Result<ReadonlyArray<string>, EventDecodeError>
  }
  /** The statements that make its tables. */
  readonly tables: ReadonlyArray<string>
  /** Applies facts that were not there before, in order, inside the transaction that moves the checkpoint. */
  readonly apply: (facts: Arr.NonEmptyReadonlyArray<Fact>) => Effect.Effect<void, ApplyError, SqlClient.SqlClient>
  /**
   * Replaces what was believed of keys by what is believed now, and applies facts of other keys, at once: so rows that keys share are
   * locked in one order. Undefined where that is to remove the rows of the keys, and to apply their facts with those of others.
   */
  readonly replace:
    | ((
      changes: ReadonlyArray<BeliefChange>,
      others: ReadonlyArray<Fact>
    ) => Effect.Effect<void, ApplyError, SqlClient.SqlClient>)
    | undefined
}

/**
 * The facts of a key that were believed before a revision, and those that are believed after it, in the order in which each
 * was first recorded.
 *
 * @category models
 * @since 0.1.0
 */
export interface BeliefChange {
  readonly key: ReadonlyArray<string>
  readonly before: ReadonlyArray<Fact>
  readonly after: ReadonlyArray<Fact>
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * The projection itself says that it cannot take a fact: trying again does not help.
 *
 * @category errors
 * @since 0.1.0
 */
export class FactRefused extends Schema.TaggedError<FactRefused>()("FactRefused", {
  position: Schema.BigInt,
  detail: Schema.String
}) {
  override get message() {
    return `Fact ${this.position} cannot be projected: ${this.detail}`
  }
}

/**
 * What applying facts may fail with. Whether a `SqlError` is worth another attempt is read from its SQLSTATE.
 *
 * @category errors
 * @since 0.1.0
 */
export type ApplyError = SqlError | FactRefused | EventDecodeError

// --------------------------------------------------------------------------------------------------- constructors

/**
 * What all projections are made of.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<Event extends { readonly _tag: string }> {
  readonly name: string
  /** Default: 1. */
  readonly version?: number | undefined
  readonly events: EventSet<Event>
  /** Categories of the streams it looks at; an event type of the same name in another stream is passed over. Default: all. */
  readonly categories?: ReadonlyArray<string> | undefined
  /** Default: `ProjectionKey.stream`. */
  readonly key?: ProjectionKey.ProjectionKey<Event> | undefined
  /**
   * Applies it in the transaction that appends, corrects or retracts a fact: who reads after the append sees it, and a fact that it
   * cannot take is refused with `ProjectionRefused`. Every writer of the store waits for that. Default: false, after the commit.
   */
  readonly inline?: boolean | undefined
}

/**
 * Makes a projection that fills tables by SQL.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <Event extends { readonly _tag: string }>(
  options: Options<Event> & {
    /** SQL that makes the tables and their indexes, by plain names. */
    readonly tables: string
    readonly apply: (
      batch: Arr.NonEmptyReadonlyArray<Projected<Event>>
    ) => Effect.Effect<unknown, ApplyError, SqlClient.SqlClient>
  }
): Projection => ({
  ...describe(options),
  tables: Result.getOrThrow(split(options.tables)).map(({ text }) => text),
  apply: (facts) =>
    Effect.flatMap(Effect.fromResult(decodeAll(options.events, facts)), (batch) => Effect.asVoid(options.apply(batch))),
  replace: undefined
})

/**
 * The name, the version, the filter and the key.
 *
 * @category constructors
 * @since 0.1.0
 */
export const describe = <Event extends { readonly _tag: string }>(
  { categories, events, inline = false, key = ProjectionKey.stream, name, version = 1 }: Options<Event>
): Pick<Projection, "name" | "version" | "inline" | "filter" | "wants" | "key"> => {
  if (key._tag === "StreamKey" && key.isOfCategory && categories?.length !== 1) {
    throw new RangeError(`The key of projection ${name} tells streams of one category apart: name that one category`)
  }
  return {
    name,
    version,
    inline,
    filter: { types: events.tags, category: categories?.length === 1 ? categories[0] : undefined },
    wants: (fact) => events.has(fact) && (categories?.includes(categoryOf(fact.stream)) ?? true),
    key: {
      columns: key.columns,
      isStream: key._tag === "StreamKey",
      of: (fact) =>
        key._tag === "StreamKey"
          ? Result.succeed(key.of(fact))
          : Result.map(events.decode(fact), (event) => key.of(event, fact))
    }
  }
}

/**
 * The facts with their events, or the first one that does not decode.
 *
 * @category combinators
 * @since 0.1.0
 */
export const decodeAll = <Event extends { readonly _tag: string }>(
  events: EventSet<Event>,
  facts: Arr.NonEmptyReadonlyArray<Fact>
): Result.Result<Arr.NonEmptyReadonlyArray<Projected<Event>>, EventDecodeError> => {
  const decode = (fact: Fact) => decodedOnce(events, fact)
  const first = decode(facts[0])
  if (Result.isFailure(first)) return Result.fail(first.failure)
  const decoded: Arr.NonEmptyArray<Projected<Event>> = [first.success]
  for (const fact of facts.slice(1)) {
    const next = decode(fact)
    if (Result.isFailure(next)) return Result.fail(next.failure)
    decoded.push(next.success)
  }
  return Result.succeed(decoded)
}

/** Projections of the same events are given the same facts, those of a page that is read once for all of them. */
const decodedOnce = <Event extends { readonly _tag: string }>(
  events: EventSet<Event>,
  fact: Fact
): Result.Result<Projected<Event>, EventDecodeError> => {
  const known: WeakMap<Fact, Result.Result<Projected<Event>, EventDecodeError>> = cast(
    decodings.get(events) ?? new WeakMap<Fact, unknown>()
  )
  decodings.set(events, known)
  const decoded = known.get(fact) ?? Result.map(events.decode(fact), (event) => ({ event, fact }))
  known.set(fact, decoded)
  return decoded
}

/** By a set of events: what it makes of facts. */
const decodings = new WeakMap<object, WeakMap<Fact, unknown>>()
