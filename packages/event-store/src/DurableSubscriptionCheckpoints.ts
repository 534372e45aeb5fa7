/**
 * Checkpoints of durable subscriptions: a row for each partition, moved only by those who name its epoch.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { PartitionFenced } from "./DurableSubscriptionError.ts"
import type { Position } from "./Fact.ts"

type Sql = Postgres["Service"]["sql"]

/**
 * A subscription's row.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubscriptionRow {
  readonly id: number
  readonly name: string
  readonly partitions: number
  readonly paused: boolean
}

/**
 * A partition in the hands of a process, until its epoch is over.
 *
 * @category models
 * @since 0.1.0
 */
export interface Claim {
  readonly partition: number
  readonly epoch: bigint
  /** The last fact handled or passed over. */
  readonly position: Position
}

/**
 * A partition's row, and the database's clock when it was read.
 *
 * @category models
 * @since 0.1.0
 */
export interface PartitionRow extends Claim {
  readonly error: string | null
  /** The label of its owner; null when nobody's lease holds. */
  readonly owner: string | null
  readonly now: Timestamp.Timestamp
}

/**
 * A step of a checkpoint.
 *
 * @category models
 * @since 0.1.0
 */
export interface Move {
  readonly from: Position
  readonly to: Position
}

/** The checkpoint is where the move would take it: the answer to an earlier attempt was lost after its commit. */
class AlreadyMoved extends Data.TaggedError("AlreadyMoved") {}
const isAlreadyMoved = (error: unknown): error is AlreadyMoved => error instanceof AlreadyMoved

// By its unique name.
export const find = (sql: Sql, store: string, name: string): Effect.Effect<SubscriptionRow | undefined, SqlError> =>
  Effect.map(
    sql<SubscriptionRow>`
      select id, name, partitions, paused from subscription where store = ${store} and name = ${name}`,
    (rows) => rows[0]
  )

/**
 * Makes a subscription and its partitions, all at one position, unless another process was sooner.
 *
 * @category constructors
 * @since 0.1.0
 */
export const create = ({ sql, transact }: Postgres["Service"], options: {
  readonly store: string
  readonly name: string
  readonly partitions: number
  readonly position: Position
}): Effect.Effect<void, SqlError | TransactionError> => {
  const { name, partitions, position, store } = options
  return Effect.gen(function*() {
    // Waits for another process that is making the same one.
    const [made] = yield* sql<{ id: number }>`
      insert into subscription (store, name, partitions) values (${store}, ${name}, ${partitions})
      on conflict (store, name) do nothing
      returning id`
    if (made === undefined) return
    yield* sql`
      insert into subscription_partition (subscription, partition, position)
      select ${made.id}, n, ${Pg.bigint(position)} from generate_series(0, ${partitions - 1}) as n`
  }).pipe((body) => transact(body, { idempotent: true }))
}

/**
 * A partition's row, and that of its subscription.
 *
 * @category models
 * @since 0.1.0
 */
export interface NamedRow extends PartitionRow {
  readonly name: string
  readonly paused: boolean
}

/**
 * The partitions of several subscriptions, in the order of their names and numbers.
 *
 * @category getters
 * @since 0.1.0
 */
// By the unique names, and the first column of the primary keys.
export const read = (sql: Sql, store: string, names: ReadonlyArray<string>): Effect.Effect<
  ReadonlyArray<NamedRow>,
  SqlError
> =>
  sql<NamedRow>`
    select s.name, s.paused, p.partition, p.epoch, p.position, p.error, m.label as owner, clock_timestamp() as now
    from subscription s
    join subscription_partition p on p.subscription = s.id
    left join subscription_member m
      on m.subscription = p.subscription and m.id = p.owner and m.lease_until > clock_timestamp()
    where s.store = ${store} and s.name = any(${Pg.textArray(names)})
    order by s.name, p.partition`

/**
 * Until the transaction ends, no checkpoint of a subscription moves. Gives where they are.
 *
 * @category getters
 * @since 0.1.0
 */
// Locks these rows, in the order of their numbers; owners lock one each.
export const hold = (sql: Sql, store: string, name: string): Effect.Effect<
  ReadonlyArray<{ readonly subscription: number; readonly partition: number; readonly position: Position }>,
  SqlError
> =>
  sql<{ subscription: number; partition: number; position: Position }>`
    select s.id as subscription, p.partition, p.position from subscription s
    join subscription_partition p on p.subscription = s.id
    where s.store = ${store} and s.name = ${name}
    order by p.partition
    for no key update of p`

/**
 * Moves all checkpoints of a subscription that nobody runs, in the transaction that holds them.
 *
 * @category combinators
 * @since 0.1.0
 */
// By the first column of the primary key.
export const advance = (sql: Sql, subscription: number, to: Position) =>
  sql`update subscription_partition set position = ${Pg.bigint(to)} where subscription = ${subscription}`

/**
 * The checkpoints of one subscription.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (postgres: Postgres["Service"], { id, name }: Pick<SubscriptionRow, "id" | "name">) => {
  const { sql, transact } = postgres

  // In the text of the statement: what is prepared is planned anew when the search path is another one than before, and the
  // transactions of each projection have one of their own.
  const own = sql.literal(String(id))

  // Locks one row, by primary key. An owner whose epoch is over finds no row, whatever the row was when it began.
  const step = Effect.fnUntraced(function*({ epoch, partition }: Claim, { from, to }: Move) {
    const moved = yield* sql`
      update subscription_partition
      set position = ${Pg.bigint(to)}, error = null
      where subscription = ${own} and partition = ${partition} and epoch = ${Pg.bigint(epoch)}
        and position = ${Pg.bigint(from)}
      returning 1`
    if (moved.length === 1) return
    // One row, by primary key.
    const [row] = yield* sql<{ epoch: bigint; position: Position }>`
      select epoch, position from subscription_partition where subscription = ${id} and partition = ${partition}`
    if (row?.epoch === epoch && row.position === to) return yield* new AlreadyMoved()
    return yield* new PartitionFenced({ subscription: name, partition, epoch })
  })

  /** Moves a checkpoint. Repeating it is safe. */
  const move = (claim: Claim, move: Move): Effect.Effect<void, PartitionFenced | SqlError> =>
    Effect.catchTag(step(claim, move), "AlreadyMoved", () => Effect.void)

  /**
   * Commits an effect and the checkpoint's move together, or neither. The row is locked last, so that it is free while the
   * effect takes place. Repeating it is safe: what was committed is not committed again.
   */
  const moveWith = <E, R>(
    effect: Effect.Effect<unknown, E, R>,
    claim: Claim,
    move: Move
  ): Effect.Effect<void, E | PartitionFenced | SqlError | TransactionError, R> =>
    transact(Effect.andThen(effect, step(claim, move)), { idempotent: true }).pipe(
      // Rolled back, since an earlier attempt has committed it all.
      Effect.catchIf(isAlreadyMoved, () => Effect.void)
    )

  /** Says why the owner of a partition stops. */
  const fail = ({ epoch, partition }: Claim, error: string): Effect.Effect<void, PartitionFenced | SqlError> =>
    Effect.gen(function*() {
      // Locks one row, by primary key.
      const rows = yield* sql`
        update subscription_partition
        set error = ${error.replaceAll("\0", "")}
        where subscription = ${id} and partition = ${partition} and epoch = ${Pg.bigint(epoch)}
        returning 1`
      if (rows.length === 0) return yield* new PartitionFenced({ subscription: name, partition, epoch })
    })

  /** Begins a new epoch of partitions, without an owner and without an error, at a position if one is given. */
  const reset = (options: {
    readonly position: Position | undefined
    /** Only this one. */
    readonly partition: number | undefined
    /** Only those that have stopped. */
    readonly failed: boolean
  }) =>
    // Locks these rows, by the first column of the primary key.
    sql`
      update subscription_partition
      set position = coalesce(${Pg.bigint(options.position ?? null)}, position), epoch = epoch + 1, owner = null,
        error = null
      where subscription = ${id}
        and partition = coalesce(${Pg.int(options.partition ?? null)}, partition)
        and (error is not null or not ${Pg.boolean(options.failed)})
      returning partition`

  // Locks one row, by primary key.
  const pause = (paused: boolean) =>
    sql`update subscription set paused = ${Pg.boolean(paused)} where id = ${id} returning 1`

  // A handful of rows, by the first column of the primary keys.
  const all: Effect.Effect<ReadonlyArray<PartitionRow>, SqlError> = sql<PartitionRow>`
    select p.partition, p.epoch, p.position, p.error, m.label as owner, clock_timestamp() as now
    from subscription_partition p
    left join subscription_member m
      on m.subscription = p.subscription and m.id = p.owner and m.lease_until > clock_timestamp()
    where p.subscription = ${id}
    order by p.partition`

  // Locks one row, by primary key, and those that refer to it.
  const remove = sql`delete from subscription where id = ${id}`

  return { move, moveWith, fail, reset, pause, remove, all }
}

/**
 * The checkpoints of one subscription.
 *
 * @category models
 * @since 0.1.0
 */
export type Checkpoints = ReturnType<typeof make>
