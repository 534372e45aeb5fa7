/**
 * Operating system processes as the embedded server needs them: under another user, with a log file for output, and
 * outliving the program that started them.
 *
 * **Details**
 *
 * `effect/process` ties a child to a scope and cannot choose its user. The server is shared by processes, so it must
 * survive the one that started it; hence `node:child_process` here and nowhere else.
 *
 * @since 0.1.0
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as NodeChildProcess from "node:child_process"
import * as Os from "node:os"

/**
 * Who runs the server. `reach` says how a process gets at directories that are closed to that user.
 *
 * @category models
 * @since 0.1.0
 */
export interface User {
  readonly uid: number
  readonly gid: number
  readonly reach: "plain" | "capability"
}

/**
 * The exit of a process: a code, or the name of the signal that ended it.
 *
 * @category models
 * @since 0.1.0
 */
export type Exit = number | string

/**
 * A started process.
 *
 * @category models
 * @since 0.1.0
 */
export interface Launched {
  readonly pid: number
  readonly exit: Effect.Effect<Exit>
}

/**
 * Starts a process in a session of its own, so that a Ctrl-C in the terminal does not reach it. Both outputs go to
 * `log`, a file descriptor.
 *
 * @category constructors
 * @since 0.1.0
 */
export const launch = Effect.fnUntraced(function*(options: {
  readonly command: string
  readonly args: ReadonlyArray<string>
  readonly user: Option.Option<User>
  readonly log: number | "ignore"
  /** Whether this process may end while the started one runs. */
  readonly outlives: boolean
}) {
  const [command, args] = withReach(options.command, options.args, options.user)
  const exited = Deferred.makeUnsafe<Exit>()
  const pid = yield* Effect.callback<number, Error>((resume) => {
    const child = NodeChildProcess.spawn(command, args, {
      cwd: "/",
      detached: true,
      env: { LC_ALL: "C", PATH: "/usr/local/bin:/usr/bin:/bin" },
      stdio: ["ignore", options.log, options.log],
      ...Option.match(options.user, {
        onNone: () => ({}),
        onSome: ({ gid, reach, uid }) => reach === "plain" ? { uid, gid } : {}
      })
    })
    child.once("error", (error) => resume(Effect.fail(error)))
    child.once("exit", (code, signal) => Deferred.doneUnsafe(exited, Effect.succeed(code ?? signal ?? "unknown")))
    child.once("spawn", () => {
      if (options.outlives) child.unref()
      resume(Effect.succeed(child.pid ?? 0))
    })
  })
  return { pid, exit: Deferred.await(exited) } satisfies Launched
})

/**
 * A capability to pass closed directories, which survives the change of user. PostgreSQL refuses to run as root, and a
 * checkout under `/root` or in a private temporary directory is closed to everybody else.
 */
const withReach = (
  command: string,
  args: ReadonlyArray<string>,
  user: Option.Option<User>
): readonly [string, ReadonlyArray<string>] =>
  Option.isSome(user) && user.value.reach === "capability"
    ? ["setpriv", [
      `--reuid=${user.value.uid}`,
      `--regid=${user.value.gid}`,
      "--clear-groups",
      // Without it access(2), by which initdb looks for its programs, leaves the capability out.
      "--securebits=+no_setuid_fixup",
      "--inh-caps=+dac_override",
      "--ambient-caps=+dac_override",
      "--",
      command,
      ...args
    ]]
    : [command, args]

/**
 * The user that shall run the server: nobody else than this process's user, unless that is root. For root it is the
 * owner of `directory` when that is another user, else `postgres` when the system has it, else `nobody`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const chooseUser = Effect.fnUntraced(function*(directory: string, mustReach: Reach) {
  if (Os.userInfo().uid !== 0) return Option.none<User>()
  const fs = yield* FileSystem.FileSystem
  const owner = yield* Effect.option(fs.stat(directory))
  const ids = Option.match(Option.filter(owner, (info) => Option.getOrElse(info.uid, () => 0) !== 0), {
    onSome: (info) =>
      Effect.succeed({
        uid: Option.getOrElse(info.uid, () => 0),
        gid: Option.getOrElse(info.gid, () => 0)
      }),
    onNone: () => systemUser
  })
  const plain: User = { ...(yield* ids), reach: "plain" }
  const reached = yield* canReach(Option.some(plain), mustReach)
  return Option.some<User>(reached ? plain : { ...plain, reach: "capability" })
})

/**
 * What the user that runs the server has to reach.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reach {
  readonly initdb: string
  readonly directory: string
}

/**
 * True when the user can run the programs and pass the directory, by whatever means it was given.
 *
 * @category constructors
 * @since 0.1.0
 */
export const canReach = (user: Option.Option<User>, reach: Reach): Effect.Effect<boolean> =>
  Option.match(user, {
    onNone: () => Effect.succeed(true),
    onSome: (user) => runs(reachScript, [reach.initdb, reach.directory], Option.some(user))
  })

/**
 * PostgreSQL's programs look for themselves with access(2), which the shell's `test` does not use: the two disagree
 * about capabilities. So initdb is asked itself. It answers in any case, and complains when it did not find itself.
 */
const reachScript = "said=$(\"$1\" --version 2>&1 >/dev/null) && test -z \"$said\" && test -x \"$2\""

/**
 * True when a running process has this text among its arguments: what is left to ask where there is no `/proc`.
 *
 * @category getters
 * @since 0.1.0
 */
export const hasArgument = (pid: number, text: string): Effect.Effect<boolean> =>
  runs("ps -p \"$1\" -o args= | grep -qF -- \"$2\"", [String(pid), text], Option.none())

/** Whether a shell script with these parameters succeeds. */
const runs = (
  script: string,
  parameters: ReadonlyArray<string>,
  user: Option.Option<User>
): Effect.Effect<boolean> =>
  launch({ command: "/bin/sh", args: ["-c", script, "sh", ...parameters], user, log: "ignore", outlives: false }).pipe(
    Effect.flatMap((launched) => launched.exit),
    Effect.map((exit) => exit === 0),
    Effect.orElseSucceed(() => false)
  )

const systemUser = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const users = (yield* fs.readFileString("/etc/passwd")).split("\n").map((line) => line.split(":"))
  const found = users.find(([name]) => name === "postgres") ?? users.find(([name]) => name === "nobody")
  return { uid: Number(found?.[2] ?? 65534), gid: Number(found?.[3] ?? 65534) }
})

/**
 * True when a process of that id runs. One that has ended but was not yet collected by its parent does not count.
 *
 * @category getters
 * @since 0.1.0
 */
export const isAlive = Effect.fnUntraced(function*(pid: number) {
  if ((yield* send(pid, 0)) === "absent") return false
  const fs = yield* FileSystem.FileSystem
  const stat = yield* Effect.option(fs.readFileString(`/proc/${pid}/stat`))
  return Option.match(stat, {
    onNone: () => Os.platform() !== "linux",
    // The state follows the name, which stands in parentheses and may itself hold some.
    onSome: (text) => !/^\) [ZX]/.test(text.slice(text.lastIndexOf(")")))
  })
})

/**
 * Sends a signal. That the process is already gone is as good.
 *
 * @category constructors
 * @since 0.1.0
 */
export const signal = (pid: number, name: NodeJS.Signals): Effect.Effect<void> => Effect.asVoid(send(pid, name))

const send = (pid: number, signal: NodeJS.Signals | 0): Effect.Effect<"sent" | "forbidden" | "absent"> =>
  Effect.try({
    try: () => process.kill(pid, signal),
    catch: (cause): "forbidden" | "absent" =>
      Predicate.hasProperty(cause, "code") && cause.code === "EPERM" ? "forbidden" : "absent"
  }).pipe(Effect.match({ onFailure: (reason) => reason, onSuccess: () => "sent" as const }))
