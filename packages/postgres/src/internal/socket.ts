/** Sockets to the server: guarded against a peer that vanished, and encrypted the way the options say. */
import * as PgProtocol from "@effect/sql-pg/PgProtocol"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Redacted from "effect/Redacted"
import { ConnectionError, SqlError } from "effect/sql/SqlError"
import * as Net from "node:net"
import type { ConnectionOptions } from "node:tls"
import { InvalidOption, PostgresError } from "../PostgresError.ts"
import type { PoolState } from "../PostgresMetrics.ts"
import type { Target, TlsTarget } from "../PostgresTarget.ts"

const open = (target: Target): Net.Socket =>
  target.path !== undefined
    ? Net.connect({ path: target.path })
    // A statement is one write and a wait, so delaying small writes gains nothing.
    : Net.connect({
      host: target.host,
      port: target.port,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: 10_000
    })

/**
 * Opens a socket that destroys itself after a silence longer than any statement.
 *
 * `BEGIN`, `COMMIT` and `ROLLBACK` cannot be interrupted, so without this limit a transaction hangs for ever when
 * packets get lost without a reset. Keepalive probes do not help: they stop while a write is unacknowledged.
 */
export const guarded = (target: Target, pool: PoolState) => (): Net.Socket => {
  const socket = open(target)
  pool.open++
  socket.once("close", () => {
    pool.open--
  })
  // Once encrypted, the driver listens to the TLS layer only, and an unheard error would end the process.
  socket.on("error", () => {})
  const limit = Duration.toMillis(target.socketTimeout)
  if (limit > 0) {
    socket.setTimeout(limit, () => socket.destroy(new Error(`The server was silent for ${limit} ms`)))
  }
  return socket
}

/** Reads the files and gives what `node:tls` needs, or `false` for no encryption. */
export const tlsOptions = Effect.fnUntraced(function*(target: Target) {
  const { tls } = target
  const ca = yield* pem("tlsCa (STRATA_DATABASE_TLS_CA, sslrootcert)", tls.ca)
  const cert = yield* pem("tlsCert (STRATA_DATABASE_TLS_CERT, sslcert)", tls.cert)
  const key = yield* pem(
    "tlsKey (STRATA_DATABASE_TLS_KEY, sslkey)",
    tls.key === undefined ? undefined : Redacted.value(tls.key)
  )
  const options: ConnectionOptions = {
    ...verification(tls),
    ...(tls.serverName === undefined ? undefined : { servername: tls.serverName }),
    ...(ca === undefined ? undefined : { ca }),
    ...(cert === undefined ? undefined : { cert }),
    ...(key === undefined ? undefined : { key })
  }
  return options
})

const verification = (tls: TlsTarget): ConnectionOptions => {
  switch (tls.mode) {
    case "verify-full":
      return { rejectUnauthorized: true }
    case "verify-ca":
      return { rejectUnauthorized: true, checkServerIdentity: () => undefined }
    default:
      return { rejectUnauthorized: false }
  }
}

const pem = Effect.fnUntraced(function*(option: string, value: string | undefined) {
  if (value === undefined || value.includes("-----BEGIN")) return value
  const files = yield* FileSystem.FileSystem
  return yield* Effect.mapError(files.readFileString(value), (error) =>
    new PostgresError({
      reason: new InvalidOption({ option, problem: `neither PEM text nor a readable file: ${error.message}` })
    }))
})

/** Asks the server whether it speaks TLS, and nothing else. */
export const offersTls = (target: Target): Effect.Effect<boolean, SqlError> =>
  Effect.callback<boolean, SqlError>((resume) => {
    const socket = open(target)
    const end = (answer: Effect.Effect<boolean, SqlError>) => {
      socket.destroy()
      resume(answer)
    }
    const failed = (cause: unknown) =>
      end(
        Effect.fail(
          new SqlError({
            reason: new ConnectionError({ cause, message: "Cannot ask the server for TLS", operation: "connect" })
          })
        )
      )
    socket.on("error", failed)
    socket.once("close", () => failed(new Error("The server closed the connection")))
    socket.once("connect", () => socket.write(PgProtocol.encodeSslRequest()))
    // Anything but S and N is the error of a server that cannot serve now; the login that follows reports it.
    socket.once("data", (answer: Uint8Array) => end(Effect.succeed(answer[0] === "S".charCodeAt(0))))
    return Effect.sync(() => socket.destroy())
  }).pipe(
    Effect.timeoutOrElse({
      duration: target.connectTimeout,
      orElse: () =>
        Effect.fail(
          new SqlError({
            reason: new ConnectionError({
              cause: new Error(`No answer within ${Duration.format(target.connectTimeout)}`),
              message: "Cannot ask the server for TLS",
              operation: "connect"
            })
          })
        )
    })
  )
