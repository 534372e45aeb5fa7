/**
 * A data directory on disk: how it is made, which server runs on it, and which password opens it.
 *
 * **Details**
 *
 * - A cluster is initialised beside its place and then renamed into it, so it is whole or absent, and of two processes
 *   that initialise at once one wins.
 * - `postmaster.pid` is only a claim. It holds when the process named there runs in this directory: process ids are
 *   used again, in containers soon.
 *
 * @since 0.1.0
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Redacted from "effect/Redacted"
import * as NodeFs from "node:fs"
import { type Binaries, majorVersion } from "./EmbeddedPostgresBinaries.ts"
import { EmbeddedPostgresError } from "./EmbeddedPostgresError.ts"
import * as Process from "./EmbeddedPostgresProcess.ts"

/**
 * An initialised data directory and who runs its server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cluster {
  readonly binaries: Binaries
  readonly user: Option.Option<Process.User>
  /** PostgreSQL's own directory, its path resolved. */
  readonly directory: string
  readonly logFile: string
  readonly password: Redacted.Redacted
}

/**
 * The server that `postmaster.pid` names. `ready` is false while it starts, recovers or stops.
 *
 * @category models
 * @since 0.1.0
 */
export interface Running {
  readonly pid: number
  readonly port: number
  readonly ready: boolean
}

const passwordFile = "strata.password"

/**
 * Opens the cluster in `<parent>/postgres`, initialising it when there is none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const open = Effect.fn("EmbeddedPostgres.open")(function*(
  directory: string,
  binaries: Binaries,
  options: { readonly sync: boolean }
) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  // The server's user starts elsewhere, so every path it is told is a full one.
  const parent = path.resolve(directory)
  const cluster = path.join(parent, "postgres")
  yield* fs.makeDirectory(parent, { recursive: true }).pipe(Effect.mapError(unusable(parent)))
  const mustReach = { initdb: binaries.initdb, directory: parent }
  const user = yield* Process.chooseUser(cluster, mustReach).pipe(Effect.mapError(unusable(parent)))
  yield* requireReach(user, mustReach)
  yield* removeAbandoned(parent).pipe(Effect.mapError(unusable(parent)))
  if (!(yield* fs.exists(path.join(cluster, "PG_VERSION")).pipe(Effect.mapError(unusable(cluster))))) {
    yield* initialise({ parent, cluster, binaries, user, sync: options.sync })
  }
  yield* requireVersion(cluster)
  const password = yield* fs.readFileString(path.join(cluster, passwordFile)).pipe(Effect.mapError(unusable(cluster)))
  return {
    binaries,
    user,
    directory: yield* fs.realPath(cluster).pipe(Effect.mapError(unusable(cluster))),
    logFile: path.join(parent, "postgres.log"),
    password: Redacted.make(password.trim())
  } satisfies Cluster
})

const unusable = (directory: string) => (cause: Error) =>
  new EmbeddedPostgresError({
    reason: "DirectoryUnusable",
    message: `The data directory ${directory} cannot be used: ${systemMessage(cause)}. ` +
      "Give this user the right to write there, or name another directory in STRATA_DATA_DIR.",
    cause
  })

/** The operating system's own words, such as "read-only file system", which a platform error only carries. */
const systemMessage = (error: Error): string => error.cause instanceof Error ? error.cause.message : error.message

const requireReach = Effect.fnUntraced(function*(user: Option.Option<Process.User>, reach: Process.Reach) {
  if (Option.isNone(user) || (yield* Process.canReach(user, reach))) return
  return yield* new EmbeddedPostgresError({
    reason: "DirectoryUnusable",
    message: `PostgreSQL does not run as root, and the user ${user.value.uid} it would run as cannot reach ` +
      `${reach.initdb} and ${reach.directory}. Open the directories above them (chmod o+x), install setpriv (util-linux), ` +
      "or start as another user than root."
  })
})

const requireVersion = Effect.fnUntraced(function*(cluster: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const version = (yield* fs.readFileString(path.join(cluster, "PG_VERSION")).pipe(Effect.mapError(unusable(cluster))))
    .trim()
  if (version === String(majorVersion)) return
  return yield* new EmbeddedPostgresError({
    reason: "VersionMismatch",
    message: `The data in ${cluster} was written by PostgreSQL ${version}, this is PostgreSQL ${majorVersion}. ` +
      "Dump it with the old version and restore it into a new directory, or name another one in STRATA_DATA_DIR."
  })
})

const initialise = Effect.fn("EmbeddedPostgres.initialise")(function*(options: {
  readonly parent: string
  readonly cluster: string
  readonly binaries: Binaries
  readonly user: Option.Option<Process.User>
  readonly sync: boolean
}) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const random = SecureRandom.make(SecureRandom.randomBytesUnsafe)
  const password = Base64Url.encode(yield* random.randomBytes(24))
  const temporary = yield* Effect.acquireRelease(
    fs.makeTempDirectory({ directory: options.parent, prefix: `postgres.new-${process.pid}-` }),
    (directory) => Effect.ignore(fs.remove(directory, { recursive: true, force: true }))
  ).pipe(Effect.mapError(unusable(options.parent)))
  const fresh = path.join(temporary, "cluster")
  const secret = path.join(temporary, passwordFile)
  const log = path.join(temporary, "initdb.log")
  yield* fs.writeFileString(secret, `${password}\n`, { mode: 0o600 }).pipe(
    Effect.andThen(own(options.user, [temporary, secret])),
    Effect.mapError(unusable(options.parent))
  )
  const exit = yield* Effect.scoped(Effect.flatMap(openLog(log), (fd) =>
    Process.launch({
      command: options.binaries.initdb,
      args: initdbArguments(fresh, secret, options.sync),
      user: options.user,
      log: fd,
      outlives: false
    }).pipe(
      Effect.flatMap(({ exit, pid }) => Effect.onInterrupt(exit, () => Process.signal(pid, "SIGKILL"))),
      Effect.mapError((cause) => initialisationFailed(options.cluster, cause.message))
    )))
  if (exit !== 0) {
    return yield* initialisationFailed(options.cluster, yield* lastLines(log, 0))
  }
  yield* fs.rename(secret, path.join(fresh, passwordFile)).pipe(Effect.mapError(unusable(options.cluster)))
  yield* fs.rename(fresh, options.cluster).pipe(
    // Another process was faster: its cluster is as good.
    Effect.catch((cause) =>
      Effect.flatMap(
        Effect.orElseSucceed(fs.exists(path.join(options.cluster, passwordFile)), () => false),
        (exists) => exists ? Effect.void : Effect.fail(unusable(options.cluster)(cause))
      )
    )
  )
}, Effect.scoped)

const initdbArguments = (directory: string, secret: string, sync: boolean): ReadonlyArray<string> => [
  `--pgdata=${directory}`,
  "--username=postgres",
  `--pwfile=${secret}`,
  "--auth=scram-sha-256",
  // What protects a word that a person thought of is lost time for 24 random bytes, at both ends of every new connection. It is for the
  // password that is made here alone: see the settings of the server.
  "--set=scram_iterations=1",
  "--encoding=UTF8",
  "--locale=C",
  "--locale-provider=builtin",
  "--builtin-locale=C.UTF-8",
  "--data-checksums",
  ...(sync ? [] : ["--no-sync"])
]

const initialisationFailed = (cluster: string, detail: string): EmbeddedPostgresError =>
  new EmbeddedPostgresError({
    reason: "InitializationFailed",
    message: `PostgreSQL could not initialise ${cluster}: ${detail}`
  })

const own = (user: Option.Option<Process.User>, files: ReadonlyArray<string>) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) =>
    Option.match(user, {
      onNone: () => Effect.void,
      onSome: ({ gid, uid }) => Effect.forEach(files, (file) => fs.chown(file, uid, gid), { discard: true })
    }))

/** Removes what processes that were killed while they initialised a cluster have left. */
const removeAbandoned = Effect.fnUntraced(function*(parent: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  yield* Effect.forEach(
    yield* fs.readDirectory(parent),
    Effect.fnUntraced(function*(name) {
      const pid = /^postgres\.new-(\d+)-/.exec(name)?.[1]
      if (pid === undefined || (yield* Process.isAlive(Number(pid)))) return
      yield* fs.remove(path.join(parent, name), { recursive: true, force: true })
    }),
    { discard: true }
  )
})

/**
 * The server that runs on the cluster, whoever started it. Forgets a claim that is provably void, which PostgreSQL
 * itself would take for a living server.
 *
 * @category getters
 * @since 0.1.0
 */
export const running = Effect.fnUntraced(function*(directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(directory, "postmaster.pid")
  const read = Effect.orElseSucceed(fs.readFileString(file), () => "")
  const claim = yield* read
  const lines = claim.split("\n")
  const pid = Number(lines[0])
  if (!Number.isInteger(pid) || pid <= 0) return Option.none<Running>()
  if (yield* runsIn(pid, directory)) {
    return Option.some<Running>({ pid, port: Number(lines[3]), ready: lines[7]?.trim() === "ready" })
  }
  if ((yield* Effect.orElseSucceed(fs.exists(`/proc/${pid}`), () => false)) && (yield* read) === claim) {
    yield* Effect.ignore(fs.remove(file))
  }
  return Option.none<Running>()
})

const runsIn = Effect.fnUntraced(function*(pid: number, directory: string) {
  if (!(yield* Process.isAlive(pid))) return false
  const fs = yield* FileSystem.FileSystem
  if (!(yield* Effect.orElseSucceed(fs.exists("/proc/self/cwd"), () => false))) {
    return yield* Process.hasArgument(pid, directory)
  }
  // PostgreSQL makes the data directory its working directory and stays there.
  const workingDirectory = yield* Effect.orElseSucceed(fs.readLink(`/proc/${pid}/cwd`), () => "")
  return workingDirectory === directory
})

/**
 * The port on which the cluster was served the last time, as PostgreSQL keeps it with the arguments of the server.
 *
 * @category getters
 * @since 0.1.0
 */
export const lastPort = Effect.fnUntraced(function*(directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const written = yield* Effect.orElseSucceed(fs.readFileString(path.join(directory, "postmaster.opts")), () => "")
  const port = Number(/"port=(\d+)"/.exec(written)?.[1])
  return port > 0 && port < 65_536 ? Option.some(port) : Option.none()
})

/**
 * Opens a log for appending, readable by its owner only.
 *
 * @category constructors
 * @since 0.1.0
 */
export const openLog = (file: string) =>
  Effect.acquireRelease(
    Effect.try({ try: () => NodeFs.openSync(file, "a", 0o600), catch: (cause) => unusable(file)(toError(cause)) }),
    (fd) => Effect.sync(() => NodeFs.closeSync(fd))
  )

const toError = (cause: unknown): Error => cause instanceof Error ? cause : new Error(String(cause))

/**
 * The last twenty lines that were written to a log after `offset`, in bytes.
 *
 * @category getters
 * @since 0.1.0
 */
export const lastLines = Effect.fnUntraced(function*(file: string, offset: number) {
  const fs = yield* FileSystem.FileSystem
  const bytes = yield* Effect.orElseSucceed(fs.readFile(file), () => new Uint8Array())
  return new TextDecoder().decode(bytes.subarray(offset)).trimEnd().split("\n").slice(-20).join("\n")
})
