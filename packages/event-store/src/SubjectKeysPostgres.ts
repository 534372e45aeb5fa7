/**
 * The keys of subjects on PostgreSQL: tables and functions are in `migrations/0012_subject_keys.sql`.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Retrying from "@strata/postgres/Retrying"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import * as AppendStatement from "./AppendStatement.ts"
import type { EventStoreError } from "./EventStore.ts"
import { EventStorePolicies } from "./EventStorePolicies.ts"
import type { Position, StreamId } from "./Fact.ts"
import type { FoundKey, StoredKey, SubjectKeyTable } from "./SubjectKeyTable.ts"

/** Keys that are looked at in one statement when they are wrapped anew. */
const page = 500

/** A key as its row has it. */
interface KeyRow extends Omit<StoredKey, "key"> {
  readonly key: bigint
}

/**
 * The tables of a database.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  { aside, inTransaction, sql }: Postgres["Service"]
): Effect.fn.Return<SubjectKeyTable> {
  const { store: { retry } } = yield* EventStorePolicies

  // Whatever a statement here writes, it does no harm when it is sent again.
  const answer = <A>(operation: string, statement: Effect.Effect<A, SqlError>): Effect.Effect<A, EventStoreError> =>
    statement.pipe(
      Retrying.retry({
        schedule: retry,
        while: AppendStatement.isRepeatable,
        isUnknown: AppendStatement.isUnknown
      }),
      Effect.mapError((cause) => AppendStatement.unavailable(operation, cause))
    )

  const of = (isAside: boolean) => isAside ? aside : sql

  // Inserts who has no key yet; see hold_subject_keys for what it waits for. Served by the primary key of subject_key.
  const hold: SubjectKeyTable["hold"] = (tenant, candidates, isAside) =>
    answer(
      "subjectKeys.hold",
      Effect.map(
        of(isAside)<KeyRow>`
          select ${tenant}::text as tenant, subject, number as key, master, wrapped
          from hold_subject_keys(
            ${Pg.text(tenant)}, ${Pg.textArray(candidates.map(({ subject }) => subject))},
            ${Pg.textArray(candidates.map(({ master }) => master))},
            ${Pg.byteaArray(candidates.map(({ wrapped }) => wrapped))}
          )`,
        (rows) => rows.map(toStored)
      )
    )

  // Served by the primary key of subject_stream, of which only missing rows are written. In order, so that two who write
  // the same wait for each other one way.
  const note: SubjectKeyTable["note"] = (tenant, places, isAside) =>
    answer(
      "subjectKeys.note",
      Effect.asVoid(
        of(isAside)`
          insert into subject_stream (tenant, subject, store, stream)
          select scope.tenant, p.subject, s.id, p.stream
          from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
            select u.subject, u.store, u.stream
            from unnest(
              ${Pg.textArray(places.map(({ subject }) => subject))}::text[],
              ${Pg.textArray(places.map(({ store }) => store))}::text[],
              ${Pg.textArray(places.map(({ stream }) => stream))}::text[]
            ) as u(subject, store, stream)
            where scope.tenant is not null
            offset 0
          ) as p
          join store s on s.name = p.store
          order by 2, 3, 4
          on conflict (tenant, subject, store, stream) do nothing`
      )
    )

  // Each by the primary keys of subject_key and subject_erasure. Of all tenants: who reads the log does.
  const find: SubjectKeyTable["find"] = (refs, isAside) =>
    answer(
      "subjectKeys.find",
      Effect.map(
        of(isAside)<Omit<KeyRow, "master" | "wrapped"> & FoundRow>`
          select f.* from (
            select set_config('strata.tenant', '', true), set_config('strata.all_tenants', 'on', true)
          ) as scope(tenant, every), lateral (
            select r.tenant, r.subject, r.key, k.master, k.wrapped
            from unnest(
              ${Pg.textArray(refs.map(({ tenant }) => tenant))}::text[],
              ${Pg.textArray(refs.map(({ subject }) => subject))}::text[],
              ${Pg.bigintArray(refs.map(({ key }) => BigInt(key)))}::bigint[]
            ) as r(tenant, subject, key)
            left join subject_key k on k.tenant = r.tenant and k.subject = r.subject and k.number = r.key
            where scope.every is not null and (
              k.number is not null or exists (
                select from subject_erasure e where e.tenant = r.tenant and e.subject = r.subject and e.key = r.key
              )
            )
            offset 0
          ) as f`,
        (rows) =>
          rows.map(({ key, master, subject, tenant, wrapped }): FoundKey => ({
            tenant,
            subject,
            key: Number(key),
            found: master === null || wrapped === null ? null : { master, wrapped }
          }))
      )
    )

  const erase: SubjectKeyTable["erase"] = ({ actor, eventId, reason, subject, tenant, traceparent }) =>
    answer(
      "subjectKeys.erase",
      Effect.map(
        sql<ErasedRow>`
          select key, recorded_reason as reason, recorded_actor as actor, at, again, stores, positions
          from erase_subject(
            ${Pg.text(tenant)}, ${Pg.text(subject)}, ${Pg.uuid(eventId)}, ${Pg.text(reason)}, ${Pg.text(actor)},
            ${Pg.text(traceparent)}
          )`,
        ([row]) => {
          const { actor, again, at, key, positions, reason, stores } = row!
          return {
            tenant,
            subject,
            key: Number(key),
            reason,
            actor,
            erasedAt: at,
            again,
            told: stores.map((store, index) => ({ store, position: positions[index]! }))
          }
        }
      )
    )

  // Served by the primary key of subject_stream.
  const streamsOf: SubjectKeyTable["streamsOf"] = ({ after, limit, store, subject, tenant }) =>
    answer(
      "subjectKeys.streamsOf",
      Effect.map(
        sql<{ readonly stream: StreamId }>`
          select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
            select stream from subject_stream
            where tenant = scope.tenant and subject = ${subject} and store = (select id from store where name = ${store})
              and stream > ${after ?? ""}
            order by stream
            limit ${limit}
          ) as f`,
        (rows) => rows.map(({ stream }) => stream)
      )
    )

  // One look at every key in the order of the primary key of subject_key.
  const wrappedOtherwise: SubjectKeyTable["wrappedOtherwise"] = (master, after) =>
    answer(
      "subjectKeys.rewrap",
      Effect.map(
        sql<KeyRow>`
          select k.* from (
            select set_config('strata.tenant', '', true), set_config('strata.all_tenants', 'on', true)
          ) as scope(tenant, every), lateral (
            select tenant, subject, number as key, master, wrapped from subject_key
            where scope.every is not null and master <> ${master}
              and (tenant, subject) > (${after?.tenant ?? ""}, ${after?.subject ?? ""})
            order by tenant, subject
            limit ${page}
          ) as k`,
        (rows) => rows.map(toStored)
      )
    )

  // Locks the rows it changes, by the primary key of subject_key, until the statement ends.
  const replace: SubjectKeyTable["replace"] = (tenant, keys) =>
    answer(
      "subjectKeys.rewrap",
      Effect.map(
        sql`
          update subject_key k set master = u.master, wrapped = u.wrapped
          from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
            select * from unnest(
              ${Pg.textArray(keys.map(({ subject }) => subject))}::text[],
              ${Pg.bigintArray(keys.map(({ key }) => BigInt(key)))}::bigint[],
              ${Pg.textArray(keys.map(({ master }) => master))}::text[],
              ${Pg.byteaArray(keys.map(({ wrapped }) => wrapped))}::bytea[]
            ) as each(subject, number, master, wrapped)
            where scope.tenant is not null
            offset 0
          ) as u
          where k.tenant = scope.tenant and k.subject = u.subject and k.number = u.number
          returning 1`,
        (rows) => rows.length
      )
    )

  return { inTransaction, hold, note, find, erase, streamsOf, wrappedOtherwise, replace }
})

const toStored = ({ key, ...row }: KeyRow): StoredKey => ({ ...row, key: Number(key) })

/** The key, nulls when it was destroyed. */
interface FoundRow {
  readonly master: string | null
  readonly wrapped: Uint8Array | null
}

/** What erase_subject returns. */
interface ErasedRow {
  readonly key: bigint
  readonly reason: string
  readonly actor: string
  readonly at: Timestamp.Timestamp
  readonly again: boolean
  readonly stores: ReadonlyArray<string>
  readonly positions: ReadonlyArray<Position>
}
