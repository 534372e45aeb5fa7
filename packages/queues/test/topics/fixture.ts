import * as Outbox from "@strata/outbox/Outbox"
import { migrations as outboxMigrations } from "@strata/outbox/OutboxMigrations"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as DeadLetters from "@strata/queues/DeadLetters"
import * as Queues from "@strata/queues/Queues"
import { migrations as queuesMigrations } from "@strata/queues/QueuesMigrations"
import * as ConsumerGroup from "@strata/queues/topics/ConsumerGroup"
import * as OutboxRelay from "@strata/queues/topics/OutboxRelay"
import * as Topic from "@strata/queues/topics/Topic"
import * as TopicPolicies from "@strata/queues/topics/TopicPolicies"
import * as Topics from "@strata/queues/topics/Topics"
import { migrations as topicsMigrations } from "@strata/queues/topics/TopicsMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"

export const migrations = [outboxMigrations, queuesMigrations, topicsMigrations]

const handled = Layer.effectDiscard(Effect.flatMap(Postgres, ({ sql }) =>
  sql`
    create table handled (
      number bigint generated always as identity, name text, label text, n integer, key text, partition integer
    )`))

/** Topics without anybody who moves messages to them, in a database of their own. */
export const Tables = Layer.mergeAll(
  handled,
  Outbox.layer,
  Topics.layer,
  Layer.provideMerge(DeadLetters.layer, Queues.layer)
)
  .pipe(
    Layer.provideMerge(PostgresTest.layer({ migrations, options: { maxConnections: 20 } })),
    Layer.provide(Layer.succeed(TopicPolicies.TopicPolicies, {
      ...TopicPolicies.defaults,
      settle: Duration.millis(300),
      upkeep: Duration.millis(200),
      groupTimeout: Duration.millis(600)
    }))
  )

/** Topics in a database of their own. */
export const Database = Layer.provideMerge(OutboxRelay.layer, Tables)

export const Payload = Schema.Struct({ n: Schema.Int })

export const topicOf = (name: string, settings?: Topic.Options) => Topic.make({ name, payload: Payload, settings })

/** Messages with these numbers; of a key each, where they have one. */
export const many = (count: number, keyOf?: (n: number) => string) =>
  Array.from({ length: count }, (_, n) => ({ payload: { n }, key: keyOf?.(n) }))

/** Until it is so. */
export const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, holds: (value: A) => boolean) =>
  Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("10 millis") }).pipe(
    Effect.andThen(effect),
    Effect.timeout("1 minute")
  )

export type Seen = {
  readonly label: string
  readonly n: number
  readonly key: string | null
  readonly partition: number
}

/** What a group has handled and committed, in the order in which it began to. */
export const seenBy = Effect.fnUntraced(function*(name: string) {
  const { sql } = yield* Postgres
  return yield* sql<Seen>`select label, n, key, partition from handled where name = ${name} order by number`
})

/** Writes down what a member of a group got. */
const write = (name: string, label: string) =>
  Effect.fnUntraced(function*(messages: ReadonlyArray<Topic.TopicMessage<typeof Payload.Type>>) {
    const { sql } = yield* Postgres
    yield* sql`
      insert into handled (name, label, n, key, partition)
      select ${name}, ${label}, * from unnest(
        ${Pg.intArray(messages.map(({ payload: { n } }) => n))}, ${
      Pg.textArray(messages.map(({ key }) => key ?? null))
    },
        ${Pg.intArray(messages.map(({ partition }) => partition))}
      )`
  })

type Members<E> = Omit<ConsumerGroup.Options<typeof Payload.Type, E, never>, "classify" | "isOutage">

/** A member that writes down what it gets, after `handler` where there is one; and how to have it leave. */
export const member = Effect.fnUntraced(function*<E = never>(
  options: Partial<Members<E>> & Pick<Members<E>, "name" | "topics">
) {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const { handler, label = "member", name, ...others } = options
  const { ended } = yield* ConsumerGroup.run<typeof Payload.Type, E | SqlError, Postgres>({
    startFrom: "beginning",
    ...others,
    name,
    label,
    handler: (messages) => Effect.andThen(handler?.(messages) ?? Effect.void, write(name, label)(messages))
  }).pipe(Scope.provide(scope))
  return { ended, leave: Scope.close(scope, Exit.void) }
})

/** How many partitions of a group each member has. */
export const shares = (name: string) =>
  Effect.flatMap(Topics.Topics, (topics) =>
    Effect.map(topics.group({ name }), ({ partitions }) => {
      const counts: Record<string, number> = {}
      for (const { owner } of partitions) counts[owner ?? "nobody"] = (counts[owner ?? "nobody"] ?? 0) + 1
      return counts
    }))

export const numbers = Effect.fnUntraced(function*(text: string) {
  const { rows } = yield* Postgres
  return (yield* rows(text, [])).map((row) => row.map(Number))
})
