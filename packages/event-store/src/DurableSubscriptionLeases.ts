/**
 * Leases of the processes that share a durable subscription, and how its partitions are shared among them.
 *
 * **Details**
 *
 * Time is the database's. A process renews one lease for all its partitions; when it is over, the others may take them.
 * Renewals of a subscription take turns on its row, so that each sees who takes part, and a batch that holds the row of a
 * partition holds up nobody.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Claim } from "./DurableSubscriptionCheckpoints.ts"
import type { Position } from "./Fact.ts"

/**
 * What a process holds after a renewal.
 *
 * @category models
 * @since 0.1.0
 */
export interface Held {
  readonly claims: ReadonlyArray<Claim>
  /** How many of them it should hand over. */
  readonly excess: number
}

/**
 * How many partitions a member may own. Shares differ by one at most and add up to all partitions; those who joined
 * first have the larger ones, so that nothing moves without need.
 *
 * @category getters
 * @since 0.1.0
 */
export const shareOf = (options: {
  readonly partitions: number
  readonly members: number
  /** Place in the order of joining, from 0. */
  readonly rank: number
}): number =>
  Math.floor(options.partitions / options.members) + (options.rank < options.partitions % options.members ? 1 : 0)

/**
 * The leases of one member of a subscription.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ sql, transact }: Postgres["Service"], options: {
  readonly subscription: number
  readonly member: string
  readonly label: string
  readonly lease: Duration.Duration
}) => {
  const { label, subscription } = options
  const member = Pg.uuid(options.member)
  const lease = Pg.double(Duration.toSeconds(options.lease))

  /** Renews the lease, joining if need be, and takes free partitions up to the member's share. */
  const renew: Effect.Effect<Held, SqlError | TransactionError> = Effect.gen(function*() {
    // Locks the subscription's row until the transaction ends: members take turns.
    const [row] = yield* sql<{ partitions: number; paused: boolean }>`
      select partitions, paused from subscription where id = ${subscription} for no key update`
    if (row === undefined) return { claims: [], excess: 0 }

    // By primary key. Only renewals and departures touch these rows.
    yield* sql`
      insert into subscription_member (subscription, id, label, lease_until)
      values (${subscription}, ${member}, ${label}, clock_timestamp() + ${lease} * interval '1 second')
      on conflict (subscription, id) do update set lease_until = excluded.lease_until`
    yield* sql`
      delete from subscription_member where subscription = ${subscription} and lease_until <= clock_timestamp()`
    const members = yield* sql<{ id: string }>`
      select id from subscription_member where subscription = ${subscription} order by joined_at, id`
    const rank = members.findIndex(({ id }) => id === options.member)
    const share = row.paused || rank < 0 ? 0 : shareOf({ partitions: row.partitions, members: members.length, rank })

    // Locks the partitions it takes; passes over one that a late owner's transaction still holds.
    yield* sql`
      update subscription_partition
      set owner = ${member}, epoch = epoch + 1, error = null
      where subscription = ${subscription} and partition = any(array(
        select p.partition from subscription_partition p
        where p.subscription = ${subscription} and (
          p.owner is null or
          not exists (select from subscription_member m where m.subscription = p.subscription and m.id = p.owner)
        )
        order by p.partition
        limit greatest(0, ${Pg.int(share)} - (
          select count(*) from subscription_partition o where o.subscription = ${subscription} and o.owner = ${member}
        ))
        for update skip locked
      ))`
    const claims = yield* sql<Claim>`
      select partition, epoch, position from subscription_partition
      where subscription = ${subscription} and owner = ${member}
      order by partition`
    return { claims, excess: Math.max(0, claims.length - share) }
  }).pipe((body) => transact(body, { idempotent: true }))

  /** Frees partitions, with the facts that were passed over since their checkpoints moved. Changes nothing in a later epoch. */
  const release = (progress: ReadonlyArray<{ readonly claim: Claim; readonly cursor: Position }>) =>
    // Locks these rows, by primary key.
    sql`
      update subscription_partition p
      set owner = null, position = greatest(p.position, r.cursor)
      from unnest(
        ${Pg.intArray(progress.map(({ claim }) => claim.partition))},
        ${Pg.bigintArray(progress.map(({ claim }) => claim.epoch))},
        ${Pg.bigintArray(progress.map(({ cursor }) => cursor))}
      ) as r(partition, epoch, cursor)
      where p.subscription = ${subscription} and p.partition = r.partition and p.epoch = r.epoch`

  // By primary key.
  const leave = sql`delete from subscription_member where subscription = ${subscription} and id = ${member}`

  return { renew, release, leave }
}

/**
 * The leases of one member of a subscription.
 *
 * @category models
 * @since 0.1.0
 */
export type Leases = ReturnType<typeof make>
