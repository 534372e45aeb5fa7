/**
 * A fresh database for a block of tests, with the tables of the given packages.
 *
 * **When to use**
 *
 * Use in `*.pg.test.ts` files. Each build of the layer makes a database of its own and drops it at the end, so files
 * run in parallel and see nothing of each other.
 *
 * **Details**
 *
 * Migrations run once for each set of files in a test run, into a template; a database is a copy of it and takes
 * milliseconds. The server is that of `vitestGlobalSetup`.
 *
 * **Example** (A test on tables)
 *
 * ```ts
 * import { assert, layer } from "@effect/vitest"
 * import { Postgres } from "@strata/postgres/Postgres"
 * import { PostgresTest } from "@strata/testing/PostgresTest"
 * import * as Effect from "effect/Effect"
 *
 * layer(PostgresTest.layer(), { excludeTestServices: true })("a table", (it) => {
 *   it.effect("counts", () =>
 *     Effect.gen(function*() {
 *       const { sql } = yield* Postgres
 *       const rows = yield* sql`select 1 as one`
 *       assert.deepStrictEqual(rows, [{ one: 1 }])
 *     }))
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import type { PostgresOptions } from "@strata/postgres/PostgresConfig"
import type { PostgresError } from "@strata/postgres/PostgresError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import type * as SqlClient from "effect/sql/SqlClient"
import * as Clusters from "./internal/clusters.ts"
import * as Databases from "./internal/databases.ts"
import type { HarnessError } from "./internal/databases.ts"

/**
 * What a test database holds and how its pool is made.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Defaults to none: the database is empty but for its schema. */
  readonly migrations?: ReadonlyArray<Migrations.Migrations> | undefined
  /** The options of `Postgres.layer` but the URL. Of connections there are five at most unless told otherwise. */
  readonly options?: Omit<PostgresOptions, "url"> | undefined
}

/**
 * The database of a test.
 *
 * @category services
 * @since 0.1.0
 */
export class PostgresTest extends Context.Service<PostgresTest, {
  /** A superuser's access, for instance for child processes. */
  readonly url: Redacted.Redacted
  readonly database: string
}>()("@strata/testing/PostgresTest") {
  /** A fresh database and the `Postgres` service on it. */
  static readonly layer = (options: Options = {}): Layer.Layer<
    PostgresTest | Postgres.Postgres | PgClient.PgClient | SqlClient.SqlClient,
    HarnessError | PostgresError
  > => layer(options)

  /** The server's maintenance database, as a superuser. */
  static readonly admin: Effect.Effect<{ readonly url: Redacted.Redacted }> = Databases.admin

  /** The URL of the test's database. */
  static readonly url: Effect.Effect<Redacted.Redacted, never, PostgresTest> = Effect.map(
    PostgresTest,
    ({ url }) => url
  )

  /**
   * A directory of the test run. Servers in directories right below it are stopped, and all is removed, when the run
   * ends, even if the test was killed.
   */
  static readonly directory: Effect.Effect<string> = Effect.map(Databases.run, (run) => run.directory)

  /**
   * Puts a data directory into this one, as `initdb` would have made it, so that an embedded server which is started there is there at
   * once.
   */
  static readonly initialise = (directory: string): Effect.Effect<void, HarnessError> =>
    Effect.flatMap(Databases.run, ({ cluster }) => Clusters.copy(cluster, directory)).pipe(
      Effect.mapError(Databases.failed(`Initialising ${directory}`)),
      Effect.provide(NodeServices.layer)
    )

  /** One more fresh database for the time of the scope, with these migrations. */
  static readonly database = (
    options: Options = {}
  ): Effect.Effect<PostgresTest["Service"], HarnessError, Scope.Scope> => database(options)
}

const defaultSchema = "strata"
/** Each session looks everything up anew that it uses, which takes a test longer than what it is there for. */
const defaultMaxConnections = 5

const database = Effect.fnUntraced(function*(options: Options) {
  const schema = options.options?.schema ?? defaultSchema
  const role = options.options?.role
  const template = yield* Databases.template(
    { schema, role },
    options.migrations ?? [],
    migrate({ schema, role }, options.migrations ?? [])
  )
  const makesSchemas = options.migrations?.some(({ makesSchemas }) => makesSchemas === true) ?? false
  return PostgresTest.of(yield* Databases.create(template, makesSchemas ? role : undefined))
}, Effect.provide(NodeServices.layer))

const migrate = (
  options: Pick<PostgresOptions, "schema" | "role">,
  migrations: ReadonlyArray<Migrations.Migrations>
) =>
(url: Redacted.Redacted) =>
  Migrations.run(migrations).pipe(
    Effect.provide(Postgres.layer({ ...options, url, maxConnections: 2 })),
    Effect.provideService(References.MinimumLogLevel, "Warn"),
    Effect.asVoid
  )

const layer = (options: Options) =>
  Layer.effect(PostgresTest, database(options)).pipe(
    Layer.flatMap((context) =>
      Layer.mergeAll(
        Layer.succeedContext(context),
        Postgres.layer({
          schema: defaultSchema,
          maxConnections: defaultMaxConnections,
          ...options.options,
          url: Context.get(context, PostgresTest).url
        })
      )
    )
  )
