/**
 * Strata, through its public layers.
 *
 * @since 0.1.0
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { BenchmarkError, failure } from "../Suite.ts"
import type { Audit, System } from "./System.ts"
import * as Workload from "./Workload.ts"

/**
 * Strata, and what only it is asked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface StrataSystem extends System {
  readonly sql: Postgres.Postgres["Service"]["sql"]
  /** Reads the log from its beginning to this position by a subscription, decoded. Told after every batch. */
  readonly catchUp: (until: bigint, onBatch?: () => void) => Effect.Effect<void, BenchmarkError>
  /** Corrects every tenth fact of a stream, and gives the time when that was known. */
  readonly correct: (stream: string) => Effect.Effect<Timestamp.Timestamp, BenchmarkError>
  /** Reads what was known at a time of a stream of this length whose every tenth fact had been corrected, decoded. */
  readonly readKnownAt: (
    stream: string,
    time: Timestamp.Timestamp,
    length: number
  ) => Effect.Effect<void, BenchmarkError>
}

/**
 * Opens a store in a database, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const database = Postgres.layer({ url, statementTimeout: 0 })
  const migrations = Migrations.layer([EventStoreMigrations.migrations]).pipe(Layer.provide(NodeServices.layer))
  const context = yield* Layer.build(
    EventStorePostgres.layer().pipe(Layer.provide(migrations), Layer.provideMerge(database))
  ).pipe(Effect.mapError(failure("Opening Strata")))
  const store = Context.get(context, EventStore)
  const { sql } = Context.get(context, Postgres.Postgres)

  const append: System["append"] = (stream, version, facts) => {
    const id = Fact.StreamId.make(stream)
    return store.append({
      facts: facts.map((data) => ({ stream: id, type: Workload.type, data, metadata: Workload.metadata })),
      expect: version === "any" ? undefined : { [stream]: version === 0 ? "noStream" : version }
    }).pipe(Effect.asVoid, Effect.mapError(failure("Strata append")))
  }

  const readStream: System["readStream"] = (stream, length) =>
    store.readStream(Fact.StreamId.make(stream)).pipe(
      Effect.mapError(failure("Strata read")),
      Effect.flatMap((facts) => {
        const wrong = facts.findIndex((fact, index) => fact.version !== index + 1 || !isDecoded(fact))
        return facts.length === length && wrong === -1
          ? Effect.void
          : Effect.fail(new BenchmarkError({ message: `Strata read ${facts.length} facts of ${length} in ${stream}` }))
      })
    )

  const catchUp: StrataSystem["catchUp"] = Effect.fnUntraced(function*(until, onBatch) {
    let expected = 0n
    let misplaced = 0
    yield* store.subscribe({ after: Fact.beginning }).pipe(
      Stream.map((facts) => {
        for (const fact of facts) if (fact.position !== ++expected || !isDecoded(fact)) misplaced++
        onBatch?.()
        return expected
      }),
      Stream.takeUntil((position) => position >= until),
      Stream.runDrain,
      Effect.mapError(failure("Strata subscription"))
    )
    if (misplaced > 0) return yield* new BenchmarkError({ message: `Strata delivered ${misplaced} facts out of place` })
  })

  const correct: StrataSystem["correct"] = Effect.fnUntraced(
    function*(stream) {
      const facts = yield* store.readStream(Fact.StreamId.make(stream))
      let time = facts[0]!.recordedAt
      for (const fact of facts) {
        if (fact.version % 10 !== 0) continue
        const data = Workload.data(fact.version + 1)
        const correction = {
          _tag: "Correction",
          revises: fact.eventId,
          data,
          reason: "miscounted",
          actor: "bench"
        } as const
        time = (yield* store.revise(correction)).recordedAt
      }
      return time
    },
    Effect.mapError(failure("Strata correction"))
  )

  const readKnownAt: StrataSystem["readKnownAt"] = (stream, time, length) =>
    store.read({ stream: Fact.StreamId.make(stream), knownAt: { time }, limit: 1000 }).pipe(
      Effect.mapError(failure("Strata read known at a time")),
      Effect.flatMap(({ facts }) => {
        const corrected = facts.filter((fact) => fact.revision === 1).length
        return facts.length === length && corrected * 10 === length && facts.every(isDecoded)
          ? Effect.void
          : Effect.fail(
            new BenchmarkError({ message: `Strata knew ${facts.length} facts of ${length}, ${corrected} corrected` })
          )
      })
    )

  return {
    name: "Strata",
    sql,
    append,
    readStream,
    head: Effect.mapError(store.head, failure("Strata head")),
    audit: auditOf(sql),
    catchUp,
    correct,
    readKnownAt
  } satisfies StrataSystem
})

const isDecoded = (fact: Fact.Fact): boolean => {
  const event = Workload.events.decode(fact)
  return Result.isSuccess(event) && event.success.quantity > 0
}

/**
 * The audit of a table `fact` in the search path.
 *
 * @category constructors
 * @since 0.1.0
 */
export const auditOf = (sql: Postgres.Postgres["Service"]["sql"]): System["audit"] => (after) =>
  Effect.mapBoth(
    sql<Audit>`
      select count(*)::integer as facts, count(*) filter (where version <> nth)::integer as misplaced
      from (
        select version, row_number() over (partition by stream order by position) as nth
        from fact
        where position > ${Pg.bigint(after)}
      )`,
    { onSuccess: (rows) => rows[0]!, onFailure: failure("Audit") }
  )
