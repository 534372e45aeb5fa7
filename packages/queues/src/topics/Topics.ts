/**
 * The topics of a database, and the groups that read them: makes them, looks at them, and steers them.
 *
 * **Details**
 *
 * A topic is made when it is declared, or when the first message for it comes. How many partitions it has can grow while it is read: each
 * new one takes keys from one other only, and goes on from where that one is, so the order of each key stays (linear hashing).
 *
 * What is too old or too much is removed as far as every live group has read it. A group without a member in several looks in a row is
 * dead: it is reported, and holds nothing back any more. It is alive again when a member comes.
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import type * as Assignor from "./group/Assignor.ts"
import * as Topic from "./Topic.ts"
import { InvalidTopicRequest, TopicError, unavailable, UnknownGroup, UnknownTopic } from "./TopicError.ts"
import * as TopicLog from "./TopicLog.ts"
import { type Policies, TopicPolicies } from "./TopicPolicies.ts"

// --------------------------------------------------------------------------------------------------------- models

/** What names a topic or a group. */
interface Named {
  readonly name: string
}

/**
 * A topic as it is stored.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoredTopic {
  readonly id: number
  readonly name: string
  readonly settings: Topic.Settings
  /** The first position that is kept; one more than the last where nothing was published. */
  readonly first: bigint
  /** The position of the last message; 0 where nothing was published. */
  readonly last: bigint
  /** Of what is kept. */
  readonly bytes: bigint
}

/**
 * A partition of a topic as a group reads it.
 *
 * @category models
 * @since 0.1.0
 */
export interface PartitionStatus {
  readonly topic: string
  readonly partition: number
  /** The last message that is done, put aside, or not of this partition. */
  readonly position: bigint
  /** The label of who has it; null when nobody does. */
  readonly owner: string | null
  readonly epoch: bigint
  /**
   * Messages of the partition after that. They are counted while no partition of the group is further behind than 10,000 messages of the
   * topic, and estimated from the number of partitions otherwise.
   */
  readonly lag: bigint
  /** Since when the oldest of them is there, in seconds; 0 when there is none. */
  readonly lagSeconds: number
}

/**
 * A member of a group.
 *
 * @category models
 * @since 0.1.0
 */
export interface MemberStatus {
  readonly id: string
  readonly label: string
  readonly instance: string | null
  readonly epoch: bigint
  readonly joinedAt: Timestamp.Timestamp
  readonly leaseUntil: Timestamp.Timestamp
  readonly partitions: number
}

/**
 * A group.
 *
 * - `stable`: each of its members has what it is to have. `rebalancing`: not yet. `empty`: it has no live member.
 * - `dead`: it had none for so long that it holds nothing back any more. `paused`, `cancelled`: somebody said so.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupStatus {
  readonly name: string
  readonly state: "stable" | "rebalancing" | "empty" | "dead" | "paused" | "cancelled"
  readonly strategy: Assignor.Strategy
  readonly epoch: bigint
  readonly members: ReadonlyArray<MemberStatus>
  readonly partitions: ReadonlyArray<PartitionStatus>
  /** Messages put aside, and given up. */
  readonly aside: number
  readonly dead: number
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * The topics and consumer groups of a database.
 *
 * @category services
 * @since 0.1.0
 */
export class Topics extends Context.Service<Topics, {
  /** Makes a topic where there is none of its name, with the settings it has. One that is there keeps its own. */
  readonly declare: (topic: Named & { readonly settings: Topic.Settings }) => Effect.Effect<StoredTopic, TopicError>
  readonly find: (topic: Named) => Effect.Effect<StoredTopic, TopicError>
  readonly all: Effect.Effect<ReadonlyArray<StoredTopic>, TopicError>
  /** Puts other settings in force. Partitions become more, never fewer. */
  readonly configure: (topic: Named, settings: Topic.Options) => Effect.Effect<StoredTopic, TopicError>
  readonly group: (group: Named) => Effect.Effect<GroupStatus, TopicError>
  readonly groups: Effect.Effect<ReadonlyArray<GroupStatus>, TopicError>
  /** Nothing of the group commits any more, until it is resumed. */
  readonly pause: (group: Named) => Effect.Effect<void, TopicError>
  readonly resume: (group: Named) => Effect.Effect<void, TopicError>
  /** Has a group read a topic from another place. What is being handled meanwhile does not commit. */
  readonly seek: (group: Named, topic: Named, to: Topic.StartFrom) => Effect.Effect<void, TopicError>
  /** Reads messages, for nobody: no position moves, and no transaction of the caller has a part in it. */
  readonly read: TopicLog.Read
  /** Ends a group for good: its members fail, and it holds nothing back any more. */
  readonly cancel: (group: Named) => Effect.Effect<void, TopicError>
}>()("@strata/queues/Topics") {}

/**
 * The topics of the database in the context. Needs the tables of `OutboxMigrations`, `QueuesMigrations` and `TopicsMigrations`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Topics, never, Postgres> = Layer.effect(
  Topics,
  Effect.gen(function*() {
    const postgres = yield* Postgres
    const policies = yield* TopicPolicies
    yield* Effect.forkScoped(upkeep(postgres, policies))
    return make(postgres, yield* TopicLog.make(postgres))
  })
)

/**
 * The channel on which it is told that a topic has more.
 *
 * @category getters
 * @since 0.1.0
 */
export const topicChannel = (topic: number): string => `strata_topic_${topic}`

/**
 * The channel on which the members of a group tell each other that there is news.
 *
 * @category getters
 * @since 0.1.0
 */
export const groupChannel = (group: number): string => `strata_group_${group}`

// ------------------------------------------------------------------------------------------------- implementation

const make = ({ rows, transact, wake }: Postgres["Service"], read: TopicLog.Read): Topics["Service"] => {
  const asked =
    (operation: string) =>
    <A>(effect: Effect.Effect<A, SqlError | TransactionError | TopicError>): Effect.Effect<A, TopicError> =>
      Effect.mapError(effect, unavailable(operation))
  const refuse = (reason: TopicError["reason"]) => Effect.fail(new TopicError({ reason }))

  const findTopic = (topic: Named) =>
    Effect.flatMap(
      rows(`${selectTopic} where t.name = $1`, [Pg.text(topic.name)]),
      ([row]) => row === undefined ? refuse(new UnknownTopic({ topic: topic.name })) : Effect.succeed(topicOf(row))
    )
  const findGroup = (group: Named) =>
    Effect.flatMap(
      rows("select id from consumer_group where name = $1", [Pg.text(group.name)]),
      ([row]) => {
        const id: number | undefined = cast(row?.[0])
        return id === undefined ? refuse(new UnknownGroup({ group: group.name })) : Effect.succeed(id)
      }
    )

  const declare = (topic: Named & { readonly settings: Topic.Settings }) =>
    Effect.andThen(
      Effect.flatMap(
        rows(
          `insert into topic (name, partitions, keep_seconds, keep_bytes, requires_group)
          select $1, $2, $3, $4, $5 where not exists (select from topic where name = $1)
          on conflict (name) do nothing
          returning id`,
          [
            Pg.text(topic.name),
            Pg.int(topic.settings.partitions),
            Pg.double(topic.settings.keepSeconds),
            Pg.bigint(topic.settings.keepBytes === null ? null : BigInt(topic.settings.keepBytes)),
            Pg.boolean(topic.settings.requiresGroup)
          ]
        ),
        (made) =>
          made.length > 0 && topic.settings.requiresGroup ? rows("select refuse_without_groups()", []) : Effect.void
      ),
      findTopic(topic)
    )

  /** Does something with a group that makes void what its members are at, and tells them. */
  const steer = (operation: string, group: Named, text: string, ...parameters: ReadonlyArray<Pg.Parameter>) =>
    Effect.flatMap(findGroup(group), (id) =>
      transact(
        Effect.andThen(
          rows("select from consumer_group where id = $1 for no key update", [Pg.int(id)]),
          rows(text, [Pg.int(id), ...parameters])
        ),
        { idempotent: true }
      ).pipe(Effect.andThen(wake(groupChannel(id))))).pipe(asked(operation))

  const statusOf = Effect.fnUntraced(function*(
    row: ReadonlyArray<unknown>
  ): Effect.fn.Return<GroupStatus, SqlError | TopicError> {
    const [id, name, strategy, epoch, isPaused, isCancelled, isDead, isDue, aside, dead]: GroupRow = cast(row)
    const members = (yield* rows(selectMembers, [Pg.int(id)])).map((row): MemberStatus => {
      const [id, label, instance, epoch, joinedAt, leaseUntil, partitions]: MemberRow = cast(row)
      return { id, label, instance, epoch, joinedAt, leaseUntil, partitions }
    })
    const found = yield* rows(selectPartitions, [Pg.int(id)])
    const partitions = found.map((row): PartitionStatus => {
      const [topic, partition, position, owner, epoch, lag, lagSeconds]: PartitionRow = cast(row)
      return { topic, partition, position, owner, epoch, lag, lagSeconds }
    })
    const isMoving = isDue || found.some((row) => row[7] === true)
    const state: GroupStatus["state"] = isCancelled
      ? "cancelled"
      : isPaused
      ? "paused"
      : isDead
      ? "dead"
      : members.length === 0
      ? "empty"
      : isMoving
      ? "rebalancing"
      : "stable"
    return { name, state, strategy, epoch, members, partitions, aside, dead }
  })

  return Topics.of({
    read,
    declare: (topic) => asked("declare")(declare(topic)),
    find: (topic) => asked("find")(findTopic(topic)),
    all: asked("all")(Effect.map(rows(`${selectTopic} order by t.name`, []), (found) => found.map(topicOf))),

    configure: (topic, options) =>
      Effect.gen(function*() {
        const { id, settings: had } = yield* findTopic(topic)
        const settings = yield* Effect.try({
          try: () => Topic.settingsOf({ partitions: had.partitions, ...options }),
          catch: (cause) =>
            new TopicError({
              reason: new InvalidTopicRequest({
                path: "settings",
                problem: Schema.isSchemaError(cause) ? cause.message : String(cause)
              })
            })
        })
        if (settings.partitions < had.partitions) {
          return yield* refuse(
            new InvalidTopicRequest({
              path: "settings.partitions",
              problem: `expected ${had.partitions} at least, as many as there are`
            })
          )
        }
        yield* transact(
          Effect.andThen(
            rows(
              `update topic set keep_seconds = $2, keep_bytes = $3, requires_group = $4 where id = $1`,
              [
                Pg.int(id),
                Pg.double(settings.keepSeconds),
                Pg.bigint(settings.keepBytes === null ? null : BigInt(settings.keepBytes)),
                Pg.boolean(settings.requiresGroup)
              ]
            ),
            rows("select grow_topic($1, $2), refuse_without_groups()", [Pg.int(id), Pg.int(settings.partitions)])
          ),
          { idempotent: true }
        )
        const groups = yield* rows("select distinct consumer_group from group_partition where topic = $1", [Pg.int(id)])
        for (const [group] of groups) yield* wake(groupChannel(cast(group)))
        return yield* findTopic(topic)
      }).pipe(asked("configure")),

    group: (group) =>
      asked("group")(Effect.gen(function*() {
        const [row] = yield* rows(`${selectGroup} where g.name = $1`, [Pg.text(group.name)])
        return row === undefined ? yield* refuse(new UnknownGroup({ group: group.name })) : yield* statusOf(row)
      })),
    groups: asked("groups")(
      Effect.flatMap(rows(`${selectGroup} order by g.name`, []), (found) => Effect.forEach(found, statusOf))
    ),

    pause: (group) => steer("pause", group, pauseGroup),
    resume: (group) => steer("resume", group, resumeGroup),
    cancel: (group) => steer("cancel", group, cancelGroup),
    seek: Effect.fnUntraced(function*(group, topic, to) {
      const { id } = yield* asked("seek")(findTopic(topic))
      const [kind, position, time] = placeOf(to)
      yield* steer("seek", group, seekGroup, Pg.int(id), Pg.text(kind), Pg.bigint(position), Pg.timestamptz(time))
    })
  })
}

/**
 * A place in a topic, as `place_in_topic` takes it.
 *
 * @category converting
 * @since 0.1.0
 */
export const placeOf = (
  to: Topic.StartFrom
): readonly [kind: string, position: bigint | null, time: Timestamp.Timestamp | null] =>
  to === "beginning" || to === "end"
    ? [to, null, null]
    : "position" in to
    ? ["position", to.position, null]
    : ["time", null, to.time]

// ------------------------------------------------------------------------------------------------------ statements

const selectTopic = `
  select
    t.id, t.name, t.partitions, t.keep_seconds, t.keep_bytes, t.requires_group, topic_end(t.id),
    coalesce((select c.first from topic_chunk c where c.topic = t.id order by c.last limit 1), topic_end(t.id) + 1),
    coalesce((select sum(c.bytes) from topic_chunk c where c.topic = t.id), 0)::bigint
  from topic t`

const topicOf = (row: ReadonlyArray<unknown>): StoredTopic => {
  const [id, name, partitions, keepSeconds, keepBytes, requiresGroup, last, first, bytes]: TopicRow = cast(row)
  return {
    id,
    name,
    settings: {
      partitions,
      keepSeconds,
      keepBytes: keepBytes === null ? null : Number(keepBytes),
      requiresGroup
    },
    first,
    last,
    bytes
  }
}

type TopicRow = readonly [number, string, number, number | null, bigint | null, boolean, bigint, bigint, bigint]

const selectGroup = `
  select
    g.id, g.name, g.strategy, g.epoch, g.paused, g.cancelled, g.dead_since is not null, g.changed_at is not null,
    (coalesce(c.ready + c.later + c.parked + c.leased, 0) + d.aside)::integer, (coalesce(c.dead, 0) + d.dead)::integer
  from consumer_group g
  left join queue_count c on c.queue = g.queue
  cross join lateral (
    select
      coalesce(sum(d.ready + d.later + d.parked + d.leased), 0) as aside, coalesce(sum(d.dead), 0) as dead
    from queue_delta d where d.queue = g.queue
  ) d`

type GroupRow = readonly [
  id: number,
  name: string,
  strategy: Assignor.Strategy,
  epoch: bigint,
  isPaused: boolean,
  isCancelled: boolean,
  isDead: boolean,
  isDue: boolean,
  aside: number,
  dead: number
]

const selectMembers = `
  select
    m.id, m.name, m.instance, m.epoch, m.joined_at, m.lease_until,
    (select count(*)::integer from group_partition p where p.consumer_group = m.consumer_group and p.owner = m.id)
  from group_member m
  where m.consumer_group = $1 and m.lease_until > clock_timestamp()
  order by m.joined_at, m.id`

type MemberRow = readonly [
  id: string,
  label: string,
  instance: string | null,
  epoch: bigint,
  joinedAt: Timestamp.Timestamp,
  leaseUntil: Timestamp.Timestamp,
  partitions: number
]

/** What follows of a topic is counted when it is no more than so many messages, partition by partition. */
const counted = 10_000

const selectPartitions = `
  with held as (
    select p.*, t.name as topic_name, t.partitions, topic_end(t.id) as last
    from group_partition p
    join topic t on t.id = p.topic
    where p.consumer_group = $1
  ), behind as (
    select topic, partitions, min("position") as least, last from held group by topic, partitions, last
  ), following as (
    select b.topic, partition_of(m.hash, b.partitions, highest_power(b.partitions)) as partition,
      c.first + m.place - 1 as "position", c.at
    from behind b
    join topic_chunk c on c.topic = b.topic and c.last > b.least
    cross join lateral unnest(c.hashes) with ordinality as m (hash, place)
    where b.last - b.least between 1 and ${counted}
  )
  select
    h.topic_name, h.partition, h.position, m.name, h.epoch,
    case when h.last <= h.position then 0 when b.last - b.least <= ${counted} then f.messages
      else (h.last - h.position + h.partitions - 1) / h.partitions end,
    coalesce(greatest(0, extract(epoch from clock_timestamp() - case
      when h.last <= h.position then null
      when b.last - b.least <= ${counted} then f.since
      else (select c.at from topic_chunk c where c.topic = h.topic and c.last > h.position order by c.last limit 1)
    end)), 0)::double precision,
    h.owner is distinct from h.target
  from held h
  join behind b on b.topic = h.topic
  cross join lateral (
    select count(*) as messages, min(f.at) as since from following f
    where f.topic = h.topic and f.partition = h.partition and f.position > h.position
  ) f
  left join group_member m
    on m.consumer_group = h.consumer_group and m.id = h.owner and m.lease_until > clock_timestamp()
  order by h.topic_name, h.partition`

type PartitionRow = readonly [
  topic: string,
  partition: number,
  position: bigint,
  owner: string | null,
  epoch: bigint,
  lag: bigint,
  lagSeconds: number
]

const pauseGroup = `
  with paused as (
    update consumer_group g set paused = true where g.id = $1 returning g.queue
  ), waiting as (
    update queue q set paused = true, version = q.version + 1 from paused p where q.id = p.queue
  )
  update group_partition p set epoch = p.epoch + 1, owner = null where p.consumer_group = $1`

const resumeGroup = `
  with resumed as (
    update consumer_group g set paused = false where g.id = $1 returning g.queue
  )
  update queue q set paused = false, version = q.version + 1 from resumed r where q.id = r.queue`

const cancelGroup = `
  with cancelled as (
    update consumer_group g set cancelled = true, changed_at = null where g.id = $1 returning g.queue
  ), waiting as (
    update queue q set paused = true, version = q.version + 1 from cancelled c where q.id = c.queue
  ), members as (
    delete from group_member m where m.consumer_group = $1
  )
  update group_partition p set epoch = p.epoch + 1, owner = null, target = null where p.consumer_group = $1`

const seekGroup = `
  update group_partition p
  set epoch = p.epoch + 1, owner = null, position = place_in_topic($2, $3, $4, $5)
  where p.consumer_group = $1 and p.topic = $2`

// ---------------------------------------------------------------------------------------------------------- upkeep

/** Looks after groups and topics until it is interrupted. Any number of processes may. */
const upkeep = ({ rows }: Postgres["Service"], { groupTimeout, trim, upkeep }: Policies): Effect.Effect<never> => {
  const groups = Effect.flatMap(
    rows("select name, change from watch_groups($1)", [Pg.double(Duration.toSeconds(groupTimeout))]),
    (changes) =>
      Effect.forEach(changes, ([name, change]) =>
        change === "dead"
          ? Effect.logWarning(`The consumer group ${String(name)} is dead: it has had no member for a while`)
          : Effect.logInfo(`The consumer group ${String(name)} is alive again`), { discard: true })
  )
  return Effect.andThen(groups, rows("select trim_topics($1)", [Pg.int(trim)])).pipe(
    Effect.catchCause((cause) => Effect.logDebug("The topics could not be looked after", cause)),
    Pace.every(upkeep),
    Effect.withTracerEnabled(false)
  )
}
