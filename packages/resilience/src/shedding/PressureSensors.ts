/**
 * The sensors of the machine: the event loop, the processors and the memory of this process or its container.
 *
 * **Details**
 *
 * In a container the limits are those of its cgroup, of either version. Where it sets none, the processors are all that
 * the machine has, and memory is the heap that Node allows itself.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as NodeOs from "node:os"
import * as PerfHooks from "node:perf_hooks"
import * as NodeProcess from "node:process"
import * as V8 from "node:v8"
import type { Sensor } from "./Pressure.ts"

interface Files {
  /** The text of a file, or "" where there is none. */
  readonly read: (name: string) => Effect.Effect<string>
}

const root = "/sys/fs/cgroup"

/** Where the files of this process's cgroup are. Inside a container its own stand at the root, whatever it is called. */
const cgroup = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const readAt = (path: string) =>
    Effect.map(Effect.orElseSucceed(files.readFileString(path), () => ""), (text) => text.trim())
  const version: 1 | 2 = (yield* readAt(`${root}/cgroup.controllers`)) === "" ? 1 : 2
  const groups = (yield* readAt("/proc/self/cgroup")).split("\n").map((line) => line.split(":"))
  const controllers = (name: string): Files => {
    const group = groups.find(([, names = ""]) => version === 2 ? names === "" : names.split(",").includes(name))
    const mounted = version === 2 ? root : `${root}/${name}`
    const path = group?.[2] ?? "/"
    const own = path === "/" ? "" : path
    return {
      read: (file) =>
        Effect.filterOrElse(
          readAt(`${mounted}${own}/${file}`),
          (text) => text !== "",
          () => readAt(`${mounted}/${file}`)
        )
    }
  }
  return { version, controllers }
})

// -------------------------------------------------------------------------------------------------------- sensors

/**
 * How late the event loop is (p99 since the last reading). It is saturated at 100 milliseconds.
 *
 * @category sensors
 * @since 0.1.0
 */
export const eventLoop: Sensor = {
  name: "event_loop",
  open: Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const delay = PerfHooks.monitorEventLoopDelay({ resolution })
        delay.enable()
        return delay
      }),
      (delay) => Effect.sync(() => delay.disable())
    ),
    (delay) =>
      Effect.sync(() => {
        if (delay.count === 0) return undefined
        const late = delay.percentile(99) / 1e6 - resolution
        delay.reset()
        return Math.max(0, late) / 100
      })
  )
}

/** Milliseconds between two looks at the event loop. What is recorded is the time between them. */
const resolution = 10

/**
 * How much of its processors the container, or else the process, used since the last reading.
 *
 * @category sensors
 * @since 0.1.0
 */
export const cpu: Sensor<FileSystem.FileSystem> = {
  name: "cpu",
  open: Effect.map(cgroup, ({ controllers, version }) => {
    const usage = version === 2 ? usageOfVersion2(controllers("cpu")) : usageOfVersion1(controllers)
    let before: { readonly used: number; readonly at: number } | undefined
    return Effect.map(Effect.all([usage, Clock.monotonicTimeNanos]), ([read, nanos]) => {
      const { processors, used } = read ?? usageOfProcess()
      const last = before
      before = { used, at: Number(nanos) / 1e9 }
      return last === undefined ? undefined : (used - last.used) / (before.at - last.at) / processors
    })
  })
}

/** Seconds of processor time so far, and the number of processors allowed. */
interface Usage {
  readonly used: number
  readonly processors: number
}

/**
 * How much of its memory is used that cannot be taken back: of the container's if it has a limit, or of the heap.
 *
 * @category sensors
 * @since 0.1.0
 */
export const memory: Sensor<FileSystem.FileSystem> = {
  name: "memory",
  open: Effect.map(cgroup, ({ controllers, version }) => {
    const files = controllers("memory")
    const container = version === 2
      ? memoryOf(files, { current: "memory.current", max: "memory.max", cache: "inactive_file" })
      : memoryOf(files, {
        current: "memory.usage_in_bytes",
        max: "memory.limit_in_bytes",
        cache: "total_inactive_file"
      })
    return Effect.map(container, (ofContainer = 0) => {
      const heap = V8.getHeapStatistics()
      return Math.max(ofContainer, heap.used_heap_size / heap.heap_size_limit)
    })
  })
}

/**
 * All of them.
 *
 * @category sensors
 * @since 0.1.0
 */
export const machine: ReadonlyArray<Sensor<FileSystem.FileSystem>> = [eventLoop, cpu, memory]

// -------------------------------------------------------------------------------------------------------- cgroups

const usageOfVersion2 = ({ read }: Files) =>
  Effect.map(Effect.all([read("cpu.stat"), read("cpu.max")]), ([stat, max]): Usage | undefined => {
    const micros = field(stat, "usage_usec")
    const [quota, period] = max.split(" ").map(Number)
    return micros === undefined ? undefined : { used: micros / 1e6, processors: processorsOf(quota, period) }
  })

const usageOfVersion1 = (controllers: (name: string) => Files) =>
  Effect.map(
    Effect.all([
      controllers("cpuacct").read("cpuacct.usage"),
      controllers("cpu").read("cpu.cfs_quota_us"),
      controllers("cpu").read("cpu.cfs_period_us")
    ]),
    ([nanos, quota, period]): Usage | undefined =>
      nanos === ""
        ? undefined
        : { used: Number(nanos) / 1e9, processors: processorsOf(Number(quota), Number(period)) }
  )

const usageOfProcess = (): Usage => {
  const { system, user } = NodeProcess.cpuUsage()
  return { used: (system + user) / 1e6, processors: NodeOs.availableParallelism() }
}

const processorsOf = (quota = 0, period = 0): number =>
  quota > 0 && period > 0 ? quota / period : NodeOs.availableParallelism()

/** The page cache counts as used, but is given back when it is asked for. */
const memoryOf = (
  { read }: Files,
  files: { readonly current: string; readonly max: string; readonly cache: string }
) =>
  Effect.map(
    Effect.all([read(files.current), read(files.max), read("memory.stat")]),
    ([current, max, stat]) => {
      const limit = Number(max)
      // Version 1 writes the largest number there is for none.
      if (current === "" || !(limit > 0 && limit < 2 ** 60)) return undefined
      return (Number(current) - (field(stat, files.cache) ?? 0)) / limit
    }
  )

const field = (lines: string, name: string): number | undefined => {
  const line = lines.split("\n").find((line) => line.startsWith(`${name} `))
  return line === undefined ? undefined : Number(line.slice(name.length + 1))
}
