/**
 * The machine: what it is, and whether somebody else used it while we measured.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Os from "node:os"

/**
 * The machine as the results describe it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memory: number
  readonly platform: string
}

/**
 * This machine.
 *
 * @category constructors
 * @since 0.1.0
 */
export const describe: Effect.Effect<Machine> = Effect.sync(() => ({
  cpu: Os.cpus()[0]?.model.trim() ?? "unknown",
  cores: Os.cpus().length,
  memory: Os.totalmem(),
  platform: `${Os.platform()} ${Os.release()} ${Os.arch()}`
}))

/**
 * Who used the machine for some time, in cores: 1 is one core all the time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Usage {
  /** This process and those it started. */
  readonly client: number
  /** The server with its children. */
  readonly server: number
  /** Everybody else, as a share of all cores. */
  readonly foreign: number
}

/**
 * Tells who uses the machine while an effect runs. Nobody does where there is no `/proc`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withUsage = Effect.fnUntraced(function*<A, E, R>(
  serverPid: number,
  effect: Effect.Effect<A, E, R>
): Effect.fn.Return<readonly [A, Usage], E, R | FileSystem.FileSystem> {
  const before = yield* ticks(serverPid)
  const result = yield* effect
  const after = yield* ticks(serverPid)
  const total = Math.max(1, after.total - before.total)
  const client = (after.client - before.client) / total
  const server = (after.server - before.server) / total
  const used = (after.used - before.used) / total
  const cores = Os.cpus().length
  return [result, { client: client * cores, server: server * cores, foreign: Math.max(0, used - client - server) }]
})

/** CPU time since the machine was started, in the kernel's ticks: of all cores, of that in use, of that by this process and its children, and by the server. */
const ticks = Effect.fnUntraced(
  function*(serverPid: number) {
    const fs = yield* FileSystem.FileSystem
    const cores = (yield* fs.readFileString("/proc/stat")).split("\n", 1)[0]!.trim().split(/\s+/).slice(1, 9).map(
      Number
    )
    const total = cores.reduce((sum, value) => sum + value, 0)
    const idle = cores[3]! + cores[4]!

    // A process that ended between the listing and the reading counts with its parent.
    const processOf = (pid: string) =>
      Effect.map(fs.readFileString(`/proc/${pid}/stat`), parseProcess).pipe(Effect.orElseSucceed(() => undefined))
    const names = (yield* fs.readDirectory("/proc")).filter((name) => /^\d+$/.test(name))
    const self = yield* processOf("self")
    let client = self === undefined ? 0 : self.own + self.children
    let server = 0
    for (const name of names) {
      const process = yield* processOf(name)
      if (process === undefined) continue
      if (Number(name) === serverPid) server += process.own + process.children
      else if (process.parent === serverPid) server += process.own
      // What this process started works for it too.
      else if (process.parent === self?.pid) client += process.own + process.children
    }
    return { total, used: total - idle, client, server }
  },
  Effect.orElseSucceed(() => ({ total: 0, used: 0, client: 0, server: 0 }))
)

/** `children` are those that have ended and were waited for. See proc_pid_stat(5). */
const parseProcess = (stat: string) => {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ").map(Number)
  return {
    pid: Number(stat.split(" ", 1)[0]),
    parent: fields[1]!,
    own: fields[11]! + fields[12]!,
    children: fields[13]! + fields[14]!
  }
}
