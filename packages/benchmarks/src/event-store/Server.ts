/**
 * The server that all systems share, and a database for each.
 *
 * @since 0.1.0
 */
import * as EmbeddedPostgres from "@strata/postgres/EmbeddedPostgres"
import * as Postgres from "@strata/postgres/Postgres"
import type { PostgresOptions } from "@strata/postgres/PostgresConfig"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import Pg from "pg"
import { type BenchmarkError, failure } from "../Suite.ts"

/**
 * The settings that differ from those of every embedded server: those of a machine that serves a database.
 *
 * @category constants
 * @since 0.1.0
 */
export const settings = {
  max_connections: "200",
  shared_buffers: "512MB",
  max_wal_size: "4GB",
  // Segments are used again instead of being made anew, which takes some 50 ms each and would be all that a p99 shows.
  min_wal_size: "2GB",
  checkpoint_timeout: "30min"
} as const

/** What decides the numbers, to be printed. */
const shownSettings = [
  "server_version",
  ...Object.keys(settings),
  "fsync",
  "synchronous_commit",
  "full_page_writes",
  "wal_compression",
  "data_checksums",
  "autovacuum"
]

/**
 * A running server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server {
  readonly pid: number
  /** The settings it has, by its own account. */
  readonly settings: Readonly<Record<string, string>>
  /** Makes a database, and gives its URL. */
  readonly createDatabase: (name: string) => Effect.Effect<Redacted.Redacted, BenchmarkError>
  /** Makes a database for the time of the scope, and gives its URL. */
  readonly temporaryDatabase: (name: string) => Effect.Effect<Redacted.Redacted, BenchmarkError, Scope.Scope>
  /** Writes what is in memory to the disk, so that no round pays for the one before. */
  readonly checkpoint: Effect.Effect<void, BenchmarkError>
}

/**
 * Starts a server in a temporary directory, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "strata-bench-" })
  // The server may run as another user, which has to pass but not to look.
  yield* fs.chmod(directory, 0o711)
  const { pid, url } = yield* EmbeddedPostgres.start({ directory, settings })
  const { sql } = yield* connect({ url, maxConnections: 2, statementTimeout: 0 })
  const shown = yield* sql<{ name: string; value: string }>`
    select name, current_setting(name) as value from pg_settings where name in ${sql.in(shownSettings)} order by name`
  const createDatabase: Server["createDatabase"] = (name) =>
    sql`create database ${sql(name)}`.pipe(
      Effect.as(databaseUrl(url, name)),
      Effect.mapError(failure(`Creating the database ${name}`))
    )
  return {
    pid,
    settings: Object.fromEntries(shown.map(({ name, value }) => [name, value])),
    createDatabase,
    temporaryDatabase: (name) =>
      // Connections that are still about to end must not keep it.
      Effect.acquireRelease(createDatabase(name), () => Effect.orDie(sql`drop database ${sql(name)} with (force)`)),
    checkpoint: Effect.asVoid(Effect.mapError(sql`checkpoint`, failure("Checkpoint")))
  } satisfies Server
}).pipe(Effect.mapError(failure("Starting the server")))

const databaseUrl = (url: Redacted.Redacted, name: string): Redacted.Redacted => {
  const changed = new URL(Redacted.value(url))
  changed.pathname = `/${name}`
  return Redacted.make(changed.href)
}

/**
 * The `Postgres` service of a database, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const connect = (options: PostgresOptions) =>
  Effect.map(Layer.build(Postgres.layer(options)), (context) => Context.get(context, Postgres.Postgres)).pipe(
    Effect.mapError(failure("Connecting"))
  )

/**
 * A pool of the driver that the peers use, with all its connections made.
 *
 * @category constructors
 * @since 0.1.0
 */
export const nodePool = Effect.fnUntraced(function*(url: Redacted.Redacted, size: number, searchPath = "public") {
  const pool = yield* Effect.acquireRelease(
    Effect.sync(() =>
      new Pg.Pool({
        connectionString: Redacted.value(url),
        max: size,
        idleTimeoutMillis: 0,
        options: `-c search_path=${searchPath}`
      })
    ),
    (pool) => Effect.ignore(Effect.tryPromise(() => pool.end()))
  )
  const connections = yield* Effect.forEach(
    Array.from({ length: size }),
    () => Effect.tryPromise({ try: () => pool.connect(), catch: failure("Connecting with pg") }),
    { concurrency: "unbounded" }
  )
  for (const connection of connections) connection.release()
  return pool
})
