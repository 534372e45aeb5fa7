/**
 * The first admin key of a server: the one it was given, or one it makes and keeps.
 *
 * **Details**
 *
 * A made key is kept in `api-key` in the data directory, readable by its owner only, and is printed when it is made. Later
 * starts say where it is. A server that others can reach must be given its key.
 *
 * @since 0.1.0
 */
import * as Console from "effect/Console"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Redacted from "effect/Redacted"
import { isLoopback, type Settings, StartRefused } from "./ServerConfig.ts"

/** Bytes of a made key. */
const strength = 32

/**
 * The key to accept. Refuses when the server listens for others and was given none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const resolve = Effect.fn("FirstApiKey.resolve")(function*(
  settings: Pick<Settings, "apiKey" | "dataDirectory" | "host">
): Effect.fn.Return<Redacted.Redacted, StartRefused, FileSystem.FileSystem | Path.Path> {
  if (Option.isSome(settings.apiKey)) return settings.apiKey.value
  if (!isLoopback(settings.host)) {
    return yield* new StartRefused({
      message: `Cannot start: HOST is ${settings.host}, which others can reach. Set STRATA_API_KEY to at least `
        + "16 characters, or HOST to 127.0.0.1."
    })
  }
  const path = yield* Path.Path
  const file = path.resolve(settings.dataDirectory, "api-key")
  return yield* Effect.catchTag(
    keep(file),
    "PlatformError",
    (error) => new StartRefused({ message: `Cannot start: the API key in ${file} cannot be used: ${error.message}` })
  )
})

/** Reads the key, or makes it. Of several processes that start together one makes it, since the file must be new. */
const keep = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  if (!(yield* fs.exists(file))) {
    yield* fs.makeDirectory(path.dirname(file), { recursive: true })
    const made = Base64Url.encode(SecureRandom.randomBytesUnsafe(strength))
    const isNew = yield* fs.writeFileString(file, `${made}\n`, { flag: "wx", mode: 0o600 }).pipe(
      Effect.as(true),
      Effect.catchIf((error) => error.reason._tag === "AlreadyExists", () => Effect.succeed(false))
    )
    if (isNew) {
      yield* Console.log(`API key: ${made}\nIt is kept in ${file} and not shown again. Send it as X-API-Key.`)
      return Redacted.make(made)
    }
  }
  const kept = (yield* fs.readFileString(file)).trim()
  if (kept.length < 16) {
    return yield* new StartRefused({
      message: `Cannot start: ${file} holds no key of at least 16 characters. Delete it to get a new one.`
    })
  }
  yield* Effect.logInfo(`The API key is the one in ${file}`)
  return Redacted.make(kept)
})
