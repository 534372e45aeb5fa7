/**
 * Plain SQL through the driver that Strata uses, on Strata's own tables and indexes: what PostgreSQL itself can do.
 *
 * @since 0.1.0
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import type { Fact } from "@strata/event-store/Fact"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import { BenchmarkError, failure } from "../Suite.ts"
import * as Server from "./Server.ts"
import { auditOf } from "./StrataSystem.ts"
import type { System } from "./System.ts"
import * as Workload from "./Workload.ts"

/**
 * A stream, the version it must have, and what it gets.
 *
 * @category models
 * @since 0.1.0
 */
export interface Slice {
  readonly stream: string
  readonly version: number
  readonly facts: ReadonlyArray<Workload.Data>
}

/**
 * Plain SQL, and what only it is asked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface PlainSystem extends System {
  /** Appends to many streams by one statement: all or none. */
  readonly appendMany: (slices: ReadonlyArray<Slice>) => Effect.Effect<void, BenchmarkError>
  /** One fact by one insert: no stream, no version check. */
  readonly insertOne: (stream: string, version: number, data: Workload.Data) => Effect.Effect<void, BenchmarkError>
}

/**
 * Opens the tables in a database, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const postgres = yield* Server.connect({ url, maxConnections: 32, statementTimeout: 0 })
  const { sql } = postgres
  yield* Migrations.run([EventStoreMigrations.migrations]).pipe(
    Effect.provideService(Postgres.Postgres, postgres),
    Effect.provide(NodeServices.layer),
    Effect.mapError(failure("Making the tables"))
  )
  yield* Effect.forEach(
    [
      sql`create sequence plain_position owned by fact.position`,
      // The upsert needs a row that holds the version; otherwise like Strata's stream.
      sql`create table plain_stream (
      number bigint generated always as identity primary key, id text collate "C" not null unique, version integer not null
    ) with (fillfactor = 80)`
    ],
    (statement) => statement,
    { discard: true }
  ).pipe(Effect.mapError(failure("Making the tables")))

  // Single inserts look at no stream: its number is made up.
  const numbers = new Map<string, bigint>()
  const numberOf = (stream: string): bigint => {
    const number = numbers.get(stream) ?? 1_000_000_000n + BigInt(numbers.size)
    numbers.set(stream, number)
    return number
  }

  // One statement, one round trip: the streams are locked and checked by the upsert, the facts follow from it.
  const appendMany: PlainSystem["appendMany"] = (slices) =>
    Effect.suspend(() => {
      const facts = slices.flatMap(({ facts, stream }) => facts.map((data, index) => ({ stream, data, index })))
      const ids = facts.map(() => SecureRandom.uuidV7Unsafe())
      const metadata = facts.map(() => Workload.toJson(Workload.metadata))
      return sql<{ position: bigint }>`
        with slice as materialized (
          select * from unnest(
            ${Pg.textArray(slices.map(({ stream }) => stream))},
            ${Pg.intArray(slices.map(({ version }) => version))},
            ${Pg.intArray(slices.map(({ facts }) => facts.length))}
          ) as s(stream, expected, added)
        ), written as (
          insert into plain_stream (id, version)
          select slice.stream, slice.expected + slice.added from slice
          on conflict (id) do update set version = excluded.version
          where plain_stream.version = (select expected from slice where slice.stream = excluded.id)
          returning id, number
        )
        insert into fact (
          store, version, position, stream, event_id, schema_version, recorded_at, valid_from, valid_to, tenant, type,
          data, metadata
        )
        select
          1, version, nextval('plain_position'), number, id, 1, now(), now(), 'infinity', 'default', ${Workload.type},
          data::json, metadata::json
        from (
          select f.stream, f.id, f.data, f.metadata, written.number, f.nth, slice.expected + f.place as version
          from unnest(
            ${Pg.textArray(facts.map(({ stream }) => stream))},
            ${Pg.intArray(facts.map(({ index }) => index + 1))},
            ${Pg.uuidArray(ids)},
            ${Pg.textArray(facts.map(({ data }) => Workload.toJson(data)))},
            ${Pg.textArray(metadata)}
          ) with ordinality as f(stream, place, id, data, metadata, nth)
          join slice using (stream)
          join written on written.id = f.stream
          order by f.nth
        )
        returning position`.pipe(
        Effect.mapError(failure("Plain append")),
        Effect.flatMap((rows) =>
          rows.length === facts.length
            ? Effect.void
            : Effect.fail(new BenchmarkError({ message: `Plain append wrote ${rows.length} of ${facts.length} facts` }))
        )
      )
    })

  const insertOne: PlainSystem["insertOne"] = (stream, version, data) =>
    Effect.suspend(() => {
      const id = SecureRandom.uuidV7Unsafe()
      return sql`
        insert into fact (
          store, version, position, stream, event_id, schema_version, recorded_at, valid_from, valid_to, tenant, type,
          data, metadata
        )
        values (
          1, ${Pg.int(version + 1)}, nextval('plain_position'), ${Pg.bigint(numberOf(stream))}, ${
        Pg.uuid(id)
      }, 1, now(),
          now(), 'infinity', 'default', ${Workload.type}, ${Pg.jsonText(Workload.toJson(data))},
          ${Pg.jsonText(Workload.toJson(Workload.metadata))}
        )
        returning position`
    }).pipe(Effect.asVoid, Effect.mapError(failure("Plain insert")))

  return {
    name: "plain SQL",
    append: (stream, version, facts) =>
      version === "any"
        ? Effect.die("plain SQL is not measured without a version")
        : appendMany([{ stream, version, facts }]),
    appendMany,
    insertOne,
    readStream: (stream, length) =>
      sql<Fact>`
        select ${columns(sql)} from fact
        where stream = (select number from plain_stream where id = ${stream}) and version >= 1
        order by version
        limit 1000`.pipe(
        Effect.mapError(failure("Plain read")),
        Effect.flatMap((facts) =>
          facts.length === length && facts.every((fact, index) => fact.version === index + 1)
            ? Effect.void
            : Effect.fail(new BenchmarkError({ message: `Plain SQL read ${facts.length} of ${length} facts` }))
        )
      ),
    head: Effect.mapBoth(sql<{ head: bigint }>`select coalesce(max(position), 0) as head from fact`, {
      onSuccess: (rows) => rows[0]!.head,
      onFailure: failure("Plain head")
    }),
    audit: auditOf(sql)
  } satisfies PlainSystem
})

/**
 * Reads a log of Strata's from its beginning to a position, a thousand facts at a time, with the columns that Strata reads.
 *
 * @category constructors
 * @since 0.1.0
 */
export const catchUp = Effect.fnUntraced(function*(sql: PgClient.PgClient, until: bigint) {
  let position = 0n
  while (position < until) {
    const facts = yield* sql<Fact>`
      select ${columns(sql)}, (select id from stream where number = fact.stream) as stream from fact
      where store = 1 and position > ${Pg.bigint(position)}
      order by position
      limit 1000`.pipe(Effect.mapError(failure("Plain catch-up")))
    for (const fact of facts) {
      if (fact.position !== ++position) {
        return yield* new BenchmarkError({ message: `Plain catch-up found ${fact.position} at ${position}` })
      }
    }
  }
})

/** Those of Strata's model. */
const columns = (sql: PgClient.PgClient) =>
  sql.literal(`
    position, version, origin, event_id as "eventId", type, schema_version as "schemaVersion", data, metadata,
    correlation_id as "correlationId", causation_id as "causationId", tenant, actor, traceparent,
    valid_from as "validFrom", valid_to as "validTo", recorded_at as "recordedAt", revision, revises, retracted, reason`)
