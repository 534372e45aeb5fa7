/**
 * What a server must be before Strata trusts it with a log: recent enough, and set up so that a commit survives a crash.
 *
 * **Details**
 *
 * `fsync`, `full_page_writes` and `synchronous_commit` are read in a session of the pool, so a value given to the role or
 * the database counts. Any `synchronous_commit` but `off` is accepted.
 *
 * @since 0.1.0
 */
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import { PostgresError, UnsafeDurability, UnsupportedServer } from "./PostgresError.ts"

/**
 * The oldest supported server, as `server_version_num`.
 *
 * @category constants
 * @since 0.1.0
 */
export const requiredVersion = 150_000

const Settings = Schema.Tuple([Schema.Struct({
  version_number: Schema.Int,
  version: Schema.String,
  fsync: Schema.String,
  full_page_writes: Schema.String,
  synchronous_commit: Schema.String
})])

const decode = Schema.decodeUnknownEffect(Settings)

// Reads settings only; touches no table.
const settingsQuery = `
  select
    current_setting('server_version_num')::int4 as version_number,
    current_setting('server_version')           as version,
    current_setting('fsync')                    as fsync,
    current_setting('full_page_writes')         as full_page_writes,
    current_setting('synchronous_commit')       as synchronous_commit
`

/**
 * Fails unless the server behind `connection` can be trusted.
 *
 * @category checks
 * @since 0.1.0
 */
export const check = Effect.fn("Durability.check")(function*(
  connection: PgConnection.PgConnection,
  options: {
    /** Names the server in messages. */
    readonly server: string
    /** Warn instead of failing. */
    readonly allowDataLossOnCrash: boolean
  }
): Effect.fn.Return<void, PostgresError | SqlError> {
  const result = yield* connection.query(settingsQuery)
  const [settings] = yield* Effect.orDie(decode(result.rows))
  if (settings.version_number < requiredVersion) {
    return yield* new PostgresError({
      reason: new UnsupportedServer({
        server: options.server,
        version: settings.version,
        required: String(Math.trunc(requiredVersion / 10_000))
      })
    })
  }
  const off = (["fsync", "full_page_writes", "synchronous_commit"] as const).filter((name) => settings[name] === "off")
  if (off.length === 0) return
  const unsafe = new UnsafeDurability({ server: options.server, settings: off })
  if (!options.allowDataLossOnCrash) return yield* new PostgresError({ reason: unsafe })
  yield* Effect.logWarning("A crash of PostgreSQL can lose committed data, as was allowed", { settings: off })
})
