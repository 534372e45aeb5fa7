/** A store of a million facts on a server that tells the plan of every statement, those inside functions included. */
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as FactChunks from "@strata/event-store/FactChunks"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { backgroundAfter } from "./backgroundAfter.ts"

export const facts = 1_000_000
export const storeName = "large"

const block = 100_000

/**
 * Facts of which some are many, some few and some alone, whatever is asked for: 20,000 streams of 50 facts, written in turns.
 * Every fiftieth is corrected by the one of its stream that comes next, and so on.
 */
const fill = Effect.gen(function*() {
  const { sql } = yield* Postgres.Postgres
  yield* sql`insert into store (name) values (${storeName})`
  yield* sql`
    insert into stream (number, store, tenant, id) overriding system value
    select
      n + 1, 1, case when n % 10 = 9 then 'acme' else 'default' end,
      case when n = 7 then 'rare' when n % 50 = 1 then 'visit' else 'order' end || '-' || n
    from generate_series(0, 19999) as n`
  yield* sql`alter table stream alter number restart with 20001`
  for (let from = 0; from < facts; from += block) {
    yield* sql`
      insert into fact (
        store, version, position, stream, event_id, schema_version, revision, recorded_at, valid_from, valid_to, retracted,
        tenant, type, data, metadata, correlation_id, causation_id, actor, origin, revises, reason
      )
      select
        1, n / 20000 + 1, n + 1, n % 20000 + 1, ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 1,
        case when revised then n / 20000 else 0 end, timestamptz '2026-01-01Z' + n * interval '1 ms', begins,
        case when n % 3 = 0 then begins + interval '1 hour' else 'infinity' end, revised and n % 5000 = 4949,
        case when n % 10 = 9 then 'acme' else 'default' end,
        case when n = 500000 then 'thing.once' when n % 1000 = 5 then 'thing.found' else 'thing.set.' || n % 5 end,
        '{"n":1}', case when n % 100 = 0 then format('{"n":%s}', n / 500)::json else '{}' end,
        case when n % 1000 < 3 then 'correlation ' || n / 1000 end, case when n % 500 = 1 then 'cause ' || n / 5000 end, 'ada',
        case when revised then n % 20000 + 1 end,
        case when revised then ('00000000-0000-7000-8000-' || lpad((n % 20000)::text, 12, '0'))::uuid end,
        case when revised then 'found out' end
      from (
        select
          n, n % 50 = 49 and n >= 20000 as revised,
          timestamptz '2025-01-01Z' + (n - case when n % 997 = 0 then n * 7919::bigint % 20000 else 0 end) * interval '1 second'
            as begins
        from generate_series(${from}::integer, ${from + block - 1}::integer) as n
      ) as made
      order by n`
  }
  yield* sql`update store set head = ${facts}, head_at = timestamptz '2026-01-01Z' + ${facts}::integer * interval '1 ms'`
  yield* sql`
    insert into idempotency_key (store, tenant, key, fingerprint, answer, position, recorded_at)
    select 1, 'default', 'key ' || n, 'f', '{}', n, clock_timestamp() - n * interval '1 second'
    from generate_series(1, 50000) as n`
  yield* sql`
    insert into snapshot (store, tenant, stream, schema_version, version, position, state)
    select 1, tenant, id, 1, 1, number, '{}' from stream`
  yield* sql`
    insert into fact_count (store, tenant, category, type, streams, facts)
    select 1, 'tenant ' || n / 10, 'order', 'thing.set.' || n % 10, 1, 1 from generate_series(1, 20000) as n`
  yield* Effect.repeat(FactChunks.summarize(sql, 1), {
    while: ({ head, summarized }) => summarized === null || head - summarized >= 256n
  })
  yield* sql`analyze`
})

/** A node of a plan, as `explain` tells it after it ran. */
interface Node {
  readonly "Node Type": string
  readonly "Relation Name"?: string
  readonly "Index Name"?: string
  readonly "Conflict Arbiter Indexes"?: ReadonlyArray<string>
  readonly "Actual Rows": number
  readonly "Actual Loops": number
  readonly "Rows Removed by Filter"?: number
  readonly Plans?: ReadonlyArray<Node>
}
const Node: Schema.Codec<Node> = Schema.Struct({
  "Node Type": Schema.String,
  "Relation Name": Schema.optionalKey(Schema.String),
  "Index Name": Schema.optionalKey(Schema.String),
  "Conflict Arbiter Indexes": Schema.optionalKey(Schema.Array(Schema.String)),
  "Actual Rows": Schema.Finite,
  "Actual Loops": Schema.Finite,
  "Rows Removed by Filter": Schema.optionalKey(Schema.Finite),
  Plans: Schema.optionalKey(Schema.Array(Schema.suspend((): Schema.Codec<Node> => Node)))
})
const Explained = Schema.fromJsonString(Schema.Struct({ "Query Text": Schema.String, Plan: Node }))
const decode = Schema.decodeUnknownSync(Explained)

const nodes = (node: Node): ReadonlyArray<Node> => [node, ...(node.Plans ?? []).flatMap(nodes)]

/** What the plans of some statements say of the tables that grow with the log. */
export interface Explanation {
  /** Their indexes that were looked into, by name. */
  readonly indexes: ReadonlyArray<string>
  /** Tables that were read from one end to the other, each with the statement that did. */
  readonly scans: ReadonlyArray<string>
  /** Rows that were looked at, whether they were wanted or not. */
  readonly rows: number
}

/** Tables that grow with the log. */
const tables = ["fact", "stream", "idempotency_key", "snapshot", "fact_chunk", "fact_count"]

const explanationOf = (log: string): Explanation => {
  const statements = [...log.matchAll(/ ms {2}plan:\n((?:\t.*\n)+)/g)].map(([, json]) =>
    decode(json!.replaceAll("\n\t", "\n"))
  )
  const found = statements.flatMap(({ Plan, "Query Text": text }) => nodes(Plan).map((node) => ({ text, node })))
  const looked = found.filter(({ node }) =>
    node["Relation Name"] !== undefined && tables.includes(node["Relation Name"])
  )
  const indexes = found.flatMap(({ node }) => node["Index Name"] ?? node["Conflict Arbiter Indexes"] ?? [])
  return {
    indexes: [...new Set(indexes)].filter((name) => tables.some((table) => name.startsWith(`${table}_`))).toSorted(),
    scans: looked.filter(({ node }) => node["Node Type"] === "Seq Scan").map(({ node, text }) =>
      `${node["Relation Name"]}: ${text}`
    ),
    rows: looked.reduce(
      (rows, { node }) => rows + (node["Actual Rows"] + (node["Rows Removed by Filter"] ?? 0)) * node["Actual Loops"],
      0
    )
  }
}

/** Runs something, and explains all of its statements. */
export class Explain extends Context.Service<
  Explain,
  <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<readonly [A, Explanation], E, R>
>()("test/Explain") {}

/** The store, for the application's role through one connection. */
export const LargeStore = Layer.unwrap(Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const server = yield* PrivatePostgres.make({
    settings: {
      shared_buffers: "256MB",
      max_wal_size: "4GB",
      // Plans as a server has them that is set up by nobody.
      max_parallel_workers_per_gather: "2",
      shared_preload_libraries: "auto_explain",
      "auto_explain.log_format": "json",
      "auto_explain.log_analyze": "on",
      "auto_explain.log_timing": "off",
      "auto_explain.log_nested_statements": "on"
    }
  })
  const log = path.join(path.dirname(server.dataDirectory), "postgres.log")
  const options = { url: server.url, role: applicationRole, statementTimeout: 0, maxConnections: 1 }
  yield* Migrations.run([migrations]).pipe(Effect.provide(Postgres.layer({ ...options, maxConnections: 2 })))
  yield* Effect.gen(function*() {
    yield* fill
    const { sql } = yield* Postgres.Postgres
    yield* sql`alter system set auto_explain.log_min_duration = 0`
    yield* sql`select pg_reload_conf()`
  }).pipe(Effect.provide(Postgres.layer({ ...options, role: undefined })))

  const explain: Explain["Service"] = Effect.fnUntraced(function*(effect) {
    const before = yield* Effect.orDie(fs.stat(log))
    const answer = yield* effect
    const text = yield* fs.stream(log, { offset: before.size }).pipe(Stream.decodeText, Stream.mkString, Effect.orDie)
    return [answer, explanationOf(text)]
  })
  return EventStorePostgres.layer({ name: storeName, summarize: false }).pipe(
    // Of which the explanations would tell as well.
    Layer.provide(backgroundAfter(Duration.infinity)),
    Layer.provideMerge(Postgres.layer(options)),
    Layer.merge(Layer.succeed(Explain, explain))
  )
}))
