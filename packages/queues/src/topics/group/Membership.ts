/**
 * Who takes part in a consumer group, and who has which partition: what a heartbeat reads and writes.
 *
 * **Details**
 *
 * A heartbeat is one transaction under the lock of the group's row, so that each sees what the one before left. Whoever comes first after
 * members have come or gone makes the next assignment, for an assignment is a function of what is stored: see `Assignor`. Nobody is told
 * to stop: a member that reads that a partition is another's ends what it does with it and reports that it is free, and only then the
 * other one takes it, under the next epoch. Partitions that do not move go on meanwhile.
 *
 * Epochs are those of Kafka's KIP-848. A member has the epoch of the last assignment that it has taken in whole. One that comes with another
 * epoch is fenced, unless it is the one before and it has nothing that it should not have: then the answer to its last heartbeat was
 * lost. What a member commits is fenced by the epoch of the partition: see `Offsets`.
 *
 * Time is the database's. A lease that lies further ahead than any that begins now is of a clock that was set back, and is cut.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { GroupCancelled, GroupFull, InstanceTaken, TopicError } from "../TopicError.ts"
import type { Policies } from "../TopicPolicies.ts"
import * as Assignor from "./Assignor.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * A partition that a member has.
 *
 * @category models
 * @since 0.1.0
 */
export interface Owned {
  readonly topic: number
  readonly partition: number
  /** How many the topic has. */
  readonly partitions: number
  readonly epoch: bigint
  /** The last message that is done, or not of this partition. */
  readonly position: bigint
}

/**
 * What a member says of itself.
 *
 * @category models
 * @since 0.1.0
 */
export interface Beat {
  /** 0 to join. */
  readonly epoch: bigint
  /** What it is at work on. */
  readonly owned: ReadonlyArray<Assignor.TopicPartition<number>>
}

/**
 * What a member is told.
 *
 * - `Fenced`: it has nothing any more, and is to join again.
 * - `Member`: what it has, and what it is to give up as soon as it can. `waits`: something that is to be its own is still another's.
 *
 * @category models
 * @since 0.1.0
 */
export type Standing =
  | { readonly _tag: "Fenced" }
  | {
    readonly _tag: "Member"
    readonly epoch: bigint
    readonly assigned: ReadonlyArray<Owned>
    readonly revoked: ReadonlyArray<Assignor.TopicPartition<number>>
    readonly waits: boolean
    /** Something changed that others wait for. */
    readonly news: boolean
    /** Members that this heartbeat has found gone, by what they are called. */
    readonly gone: ReadonlyArray<string>
  }

/**
 * A member, and what holds for its group.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly group: number
  readonly groupName: string
  readonly member: string
  readonly instance: string | undefined
  readonly name: string
  readonly topics: ReadonlyArray<number>
  /** How long it stays a member without a heartbeat. */
  readonly session: Duration.Duration
  readonly maxMembers: number | undefined
  readonly policies: Pick<Policies, "settle" | "revocation">
}

interface GroupRow {
  readonly strategy: Assignor.Strategy
  readonly paused: boolean
  readonly cancelled: boolean
  readonly epoch: bigint
  /** Nobody was found alive when groups were looked after. */
  readonly missed: boolean
  readonly dead: boolean
  /** Another assignment is due, and has been for so many seconds. */
  readonly changedFor: number | null
  readonly now: Timestamp.Timestamp
}

interface MemberRow {
  readonly epoch: bigint
  readonly previousEpoch: bigint
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * The heartbeats of a member.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ sql, transact }: Postgres["Service"], options: Options) => {
  const { group, groupName, instance, maxMembers, policies, topics } = options
  const member = Pg.uuid(options.member)
  const session = Pg.double(Duration.toSeconds(options.session))
  const refuse = (reason: TopicError["reason"]) => Effect.fail(new TopicError({ reason }))

  /** Another assignment is due: soon, or at once. */
  const changed = (atOnce: boolean) =>
    sql`
      update consumer_group
      set changed_at = least(changed_at, clock_timestamp() - ${
      Pg.double(atOnce ? Duration.toSeconds(policies.settle) : 0)
    } * interval '1 second')
      where id = ${group}`

  const join = Effect.gen(function*() {
    if (instance !== undefined) {
      const [before] = yield* sql<{ id: string }>`
        select id from group_member where consumer_group = ${group} and instance = ${instance} and id <> ${member}`
      if (before !== undefined) {
        // It is in the place of the one that it was. Whatever that one still does is void.
        const old = Pg.uuid(before.id)
        yield* sql`
          update group_partition
          set target = case when target = ${old} then ${member} else target end, owner = null, epoch = epoch + 1
          where consumer_group = ${group} and (target = ${old} or owner = ${old})`
        yield* sql`
          update group_member
          set id = ${member}, name = ${options.name}, session = ${session}, revoke_until = null,
            lease_until = clock_timestamp() + ${session} * interval '1 second'
          where consumer_group = ${group} and id = ${old}`
      }
    }
    const [known] = yield* sql<{ topics: ReadonlyArray<number> }>`
      update group_member
      set lease_until = clock_timestamp() + ${session} * interval '1 second', topics = ${Pg.intArray(topics)}
      where consumer_group = ${group} and id = ${member}
      returning (select m.topics from group_member m where m.consumer_group = ${group} and m.id = ${member}) as topics`
    if (known !== undefined) {
      // What it had before it joined is nobody's.
      yield* sql`
        update group_partition set owner = null, epoch = epoch + 1
        where consumer_group = ${group} and owner = ${member}`
      if (known.topics.join() !== topics.join()) yield* changed(true)
      return
    }
    if (maxMembers !== undefined) {
      const [row] = yield* sql<{ members: number }>`
        select count(*)::integer as members from group_member
        where consumer_group = ${group} and lease_until > clock_timestamp()`
      if (row!.members >= maxMembers) return yield* refuse(new GroupFull({ group: groupName, maxMembers }))
    }
    yield* sql`
      insert into group_member (consumer_group, id, instance, name, topics, session, lease_until)
      values (
        ${group}, ${member}, ${instance ?? null}, ${options.name}, ${Pg.intArray(topics)}, ${session},
        clock_timestamp() + ${session} * interval '1 second'
      )`
    yield* changed(false)
  })

  /** Renews the membership; undefined when there is none. */
  const renew = Effect.map(
    sql<MemberRow>`
      update group_member
      set lease_until = clock_timestamp() + ${session} * interval '1 second'
      where consumer_group = ${group} and id = ${member}
      returning epoch, previous_epoch as "previousEpoch"`,
    ([row]) => row
  )

  /** Takes those for gone whose lease is over, or who did not give up in time what is another's. */
  const expire = Effect.gen(function*() {
    yield* sql`
      update group_member set lease_until = clock_timestamp() + session * interval '1 second'
      where consumer_group = ${group} and lease_until > clock_timestamp() + session * interval '1 second'`
    const gone = yield* sql<{ id: string; name: string }>`
      delete from group_member
      where consumer_group = ${group} and (lease_until <= clock_timestamp() or revoke_until <= clock_timestamp())
      returning id, name`
    if (gone.length > 0) yield* changed(true)
    return gone
  })

  const assign = Effect.fnUntraced(function*({ epoch, strategy }: GroupRow) {
    const members = yield* sql<{ id: string; instance: string | null; topics: ReadonlyArray<number>; epoch: bigint }>`
      select id, instance, topics, epoch from group_member where consumer_group = ${group}`
    const rows = yield* sql<{ topic: number; partition: number; owner: string | null; target: string | null }>`
      select topic, partition, owner, target from group_partition where consumer_group = ${group}`
    const next = epoch + 1n
    const counts = new Map<number, number>()
    for (const { topic } of rows) counts.set(topic, (counts.get(topic) ?? 0) + 1)
    const given = Assignor.assign({
      strategy,
      members: members.map(({ epoch, id, instance, topics }) => ({
        id,
        instance: instance ?? undefined,
        topics,
        epoch: Number(epoch),
        // Who was to have it is as good as who has it.
        owned: rows.filter(({ owner, target }) => (target ?? owner) === id)
      })),
      partitions: counts,
      seed: `${groupName} ${next}`
    })
    const shares = [...given].flatMap(([id, share]) => share.map((one) => ({ id, ...one })))
    yield* sql`
      update group_partition p
      set target = s.target
      from (
        select g.topic, g.partition, s.target
        from group_partition g
        left join unnest(
          ${Pg.intArray(shares.map(({ topic }) => topic))}, ${Pg.intArray(shares.map(({ partition }) => partition))},
          ${Pg.uuidArray(shares.map(({ id }) => id))}
        ) as s (topic, partition, target) on s.topic = g.topic and s.partition = g.partition
        where g.consumer_group = ${group}
      ) s
      where p.consumer_group = ${group} and p.topic = s.topic and p.partition = s.partition
        and p.target is distinct from s.target`
    yield* sql`update consumer_group set epoch = ${Pg.bigint(next)}, changed_at = null where id = ${group}`
    yield* sql`
      update group_member m
      set revoke_until = coalesce(m.revoke_until, clock_timestamp() + ${
      Pg.double(Duration.toSeconds(policies.revocation))
    } * interval '1 second')
      where m.consumer_group = ${group} and exists (
        select from group_partition p
        where p.consumer_group = ${group} and p.owner = m.id and p.target is distinct from m.id
      )`
    return next
  })

  /** Frees what is another's and not at work any more, takes what is its own and free. */
  const exchange = Effect.fnUntraced(function*(owned: Beat["owned"], isPaused: boolean) {
    const freed = yield* sql`
      update group_partition p
      set owner = null
      where p.consumer_group = ${group} and p.owner = ${member} and p.target is distinct from ${member}
        and not exists (
          select from unnest(
            ${Pg.intArray(owned.map(({ topic }) => topic))}, ${Pg.intArray(owned.map(({ partition }) => partition))}
          ) as o (topic, partition)
          where o.topic = p.topic and o.partition = p.partition
        )
      returning 1`
    // Passes over those that a late owner's transaction still holds.
    const taken = isPaused ? [] : yield* sql`
      update group_partition p
      set owner = ${member}, epoch = p.epoch + 1
      from (
        select g.topic, g.partition from group_partition g
        where g.consumer_group = ${group} and g.target = ${member} and g.owner is distinct from ${member}
          and not exists (select from group_member m where m.consumer_group = ${group} and m.id = g.owner)
        for update skip locked
      ) f
      where p.consumer_group = ${group} and p.topic = f.topic and p.partition = f.partition
      returning 1`
    return freed.length + taken.length > 0
  })

  const holdings = sql<Owned & { readonly owner: string | null; readonly target: string | null }>`
    select p.topic, p.partition, t.partitions, p.epoch, p.position, p.owner, p.target
    from group_partition p join topic t on t.id = p.topic
    where p.consumer_group = ${group} and (p.owner = ${member} or p.target = ${member})
    order by p.topic, p.partition`

  const beat = ({ epoch, owned }: Beat): Effect.Effect<Standing, TopicError | SqlError | TransactionError> =>
    transact(
      Effect.gen(function*() {
        const [found] = yield* sql<GroupRow>`
          select
            strategy, paused, cancelled, epoch, missed_since is not null as missed, dead_since is not null as dead,
            extract(epoch from clock_timestamp() - changed_at)::double precision as "changedFor",
            clock_timestamp() as now
          from consumer_group where id = ${group} for no key update`
        if (found === undefined || found.cancelled) return yield* refuse(new GroupCancelled({ group: groupName }))
        if (epoch === 0n) yield* join
        const own = yield* renew
        if (own === undefined) {
          // Whoever has its instance now has taken its place.
          const others = instance === undefined ? [] : yield* sql`
            select from group_member where consumer_group = ${group} and instance = ${instance}`
          if (instance !== undefined && others.length > 0) {
            return yield* refuse(new InstanceTaken({ group: groupName, instance }))
          }
          return fenced
        }
        if (found.missed) {
          yield* sql`update consumer_group set missed_since = null, dead_since = null where id = ${group}`
        }
        if (found.dead) yield* sql`select refuse_without_groups()`
        const gone = yield* expire
        if (gone.some(({ id }) => id === options.member)) return fenced
        const before = yield* holdings
        const isOwn = (one: Assignor.TopicPartition<number>) =>
          before.some(({ owner, partition, target, topic }) =>
            owner === options.member && target === options.member && topic === one.topic && partition === one.partition
          )
        if (epoch !== 0n && epoch !== own.epoch && !(epoch === own.previousEpoch && owned.every(isOwn))) return fenced

        const [due] = yield* sql<{ due: boolean; epoch: bigint }>`
          select
            epoch,
            changed_at is not null and (
              changed_at <= clock_timestamp() - ${Pg.double(Duration.toSeconds(policies.settle))} * interval '1 second'
              or not exists (
                select from group_partition p join group_member m
                  on m.consumer_group = p.consumer_group and m.id = p.target
                where p.consumer_group = ${group}
              )
            ) as due
          from consumer_group where id = ${group}`
        const current = due!.due ? yield* assign(found) : due!.epoch
        const hasMoved = yield* exchange(owned, found.paused)
        const after = yield* holdings
        const revoked = after.filter(({ owner, target }) => owner === options.member && target !== options.member)
        if (revoked.length === 0 && own.epoch !== current) {
          yield* sql`
            update group_member
            set previous_epoch = epoch, epoch = ${Pg.bigint(current)}, revoke_until = null
            where consumer_group = ${group} and id = ${member}`
        }
        return {
          _tag: "Member" as const,
          epoch: revoked.length === 0 ? current : own.epoch,
          assigned: after.filter(({ owner, target }) => owner === options.member && target === options.member),
          revoked,
          waits: !found.paused &&
            (after.some(({ owner, target }) => target === options.member && owner !== options.member) ||
              found.changedFor !== null && !due!.due),
          news: epoch === 0n || gone.length > 0 || due!.due || hasMoved,
          gone: gone.map(({ name }) => name)
        }
      }),
      { idempotent: true }
    )

  /** Frees all it has, and leaves; a static member stays until its lease is over. */
  const leave = transact(
    Effect.gen(function*() {
      yield* sql`select from consumer_group where id = ${group} for no key update`
      yield* sql`
        update group_partition set owner = null where consumer_group = ${group} and owner = ${member}`
      if (instance !== undefined) return
      const left = yield* sql`
        delete from group_member where consumer_group = ${group} and id = ${member} returning 1`
      if (left.length > 0) yield* changed(true)
    }),
    { idempotent: true }
  )

  return { beat, leave }
}

const fenced: Standing = { _tag: "Fenced" }

/**
 * The heartbeats of a member.
 *
 * @category models
 * @since 0.1.0
 */
export type Membership = ReturnType<typeof make>
