/**
 * Emmett's event store on PostgreSQL, through its own API and on a pool of its own driver.
 *
 * @since 0.1.0
 */
import { type Event, isExpectedVersionConflictError, NO_CONCURRENCY_CHECK } from "@event-driven-io/emmett"
import { getPostgreSQLEventStore, postgreSQLEventStoreConsumer } from "@event-driven-io/emmett-postgresql"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Crypto from "node:crypto"
import { BenchmarkError, failure } from "../Suite.ts"
import * as Server from "./Server.ts"
import type { Audit, System } from "./System.ts"
import * as Workload from "./Workload.ts"

/**
 * Emmett, and what only it is asked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface EmmettSystem extends System {
  /** Lets a consumer of its own handle this many messages from the beginning. */
  readonly catchUp: (messages: number) => Effect.Effect<void, BenchmarkError>
}

type OrderEvent = Event<typeof Workload.type, Workload.Data, typeof Workload.metadata>

/**
 * Opens a store in a database, for the time of the scope. More connections than 32 make it slower.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const connectionString = Redacted.value(url)
  const pool = yield* Server.nodePool(url, 32)
  yield* Effect.tryPromise({
    try: () => getPostgreSQLEventStore(connectionString, { connectionOptions: { pool } }).schema.migrate(),
    catch: failure("Making Emmett's tables")
  })
  const store = getPostgreSQLEventStore(connectionString, {
    schema: { autoMigration: "None" },
    connectionOptions: { pool }
  })

  const append: System["append"] = (stream, version, facts) => {
    const appended = Effect.tryPromise({
      try: () =>
        store.appendToStream<OrderEvent>(
          stream,
          facts.map((data) => ({ type: Workload.type, data, metadata: Workload.metadata })),
          { expectedStreamVersion: version === "any" ? NO_CONCURRENCY_CHECK : BigInt(version) }
        ),
      catch: failure("Emmett append")
    })
    // Without a version it reads the version itself, and conflicts with whoever was faster: the caller tries again.
    return version === "any"
      ? Effect.asVoid(Effect.retry(appended, { while: ({ cause }) => isExpectedVersionConflictError(cause) }))
      : Effect.asVoid(appended)
  }

  const readStream: System["readStream"] = (stream, length) =>
    Effect.tryPromise({ try: () => store.readStream<OrderEvent>(stream), catch: failure("Emmett read") }).pipe(
      Effect.flatMap(({ events }) =>
        events.length === length &&
          events.every((event, index) => event.metadata.streamPosition === BigInt(index + 1) && event.data.quantity > 0)
          ? Effect.void
          : Effect.fail(new BenchmarkError({ message: `Emmett read ${events.length} of ${length} facts` }))
      )
    )

  const catchUp: EmmettSystem["catchUp"] = Effect.fnUntraced(function*(messages) {
    let seen = 0
    const consumer = postgreSQLEventStoreConsumer<OrderEvent>({
      connectionString,
      pulling: { batchSize: 1000, pullingFrequencyInMs: 1 }
    })
    consumer.reactor<OrderEvent>({
      processorId: `bench-${Crypto.randomUUID()}`,
      eachMessage: (message) => {
        if (message.data.quantity > 0) seen++
      },
      stopAfter: () => seen >= messages
    })
    yield* Effect.tryPromise({ try: () => consumer.start(), catch: failure("Emmett consumer") }).pipe(
      Effect.ensuring(Effect.ignore(Effect.tryPromise(() => consumer.close())))
    )
    if (seen !== messages) {
      return yield* new BenchmarkError({ message: `Emmett delivered ${seen} of ${messages} facts` })
    }
  })

  return {
    name: "Emmett",
    append,
    readStream,
    head: query<{ head: string }>(pool, "select coalesce(max(global_position), 0) as head from emt_messages", []).pipe(
      Effect.map((row) => BigInt(row.head))
    ),
    audit: (after) =>
      query<Audit>(
        pool,
        `select count(*)::integer as facts, count(*) filter (where stream_position <> nth)::integer as misplaced
        from (
          select stream_position, row_number() over (partition by stream_id order by global_position) as nth
          from emt_messages
          where global_position > $1
        )`,
        [after]
      ),
    catchUp
  } satisfies EmmettSystem
})

/** The first row of an answer. */
const query = <Row extends object>(
  pool: Effect.Success<ReturnType<typeof Server.nodePool>>,
  text: string,
  values: ReadonlyArray<unknown>
) =>
  Effect.tryPromise({ try: () => pool.query<Row>(text, [...values]), catch: failure("Emmett's tables") }).pipe(
    Effect.map(({ rows }) => rows[0]!)
  )
