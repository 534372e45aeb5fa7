import { assert, describe, it } from "@effect/vitest"
import type * as Pressure from "@strata/resilience/shedding/Pressure"
import * as PressureSensors from "@strata/resilience/shedding/PressureSensors"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as PlatformError from "effect/PlatformError"
import * as TestClock from "effect/testing/TestClock"

/** A machine that has these files, and no others. They may change. */
const machine = (files: Record<string, string>) =>
  FileSystem.layerNoop({
    readFileString: (path) =>
      Effect.suspend(() => {
        const text = files[path]
        return text === undefined
          ? Effect.fail(PlatformError.systemError({ _tag: "NotFound", module: "FileSystem", method: "readFileString" }))
          : Effect.succeed(`${text}\n`)
      })
  })

const open = (sensor: Pressure.Sensor<FileSystem.FileSystem>, files: Record<string, string>) =>
  Effect.provide(sensor.open, machine(files))

const mebi = (count: number) => `${count * 1024 ** 2}`

describe("the sensor of the processors", () => {
  it.effect("reads what a container of version 2 used of its quota", () =>
    Effect.gen(function*() {
      const files: Record<string, string> = {
        "/sys/fs/cgroup/cgroup.controllers": "cpu memory",
        "/proc/self/cgroup": "0::/",
        "/sys/fs/cgroup/cpu.stat": "usage_usec 1000000\nuser_usec 1",
        "/sys/fs/cgroup/cpu.max": "150000 100000"
      }
      const read = yield* open(PressureSensors.cpu, files)
      assert.isUndefined(yield* read)
      yield* TestClock.adjust("2 seconds")
      files["/sys/fs/cgroup/cpu.stat"] = "usage_usec 2500000\nuser_usec 1"
      assert.closeTo((yield* read) ?? NaN, 0.5, 1e-9)
    }))

  it.effect("reads what a container of version 1 used of its quota, wherever it stands", () =>
    Effect.gen(function*() {
      const files: Record<string, string> = {
        "/proc/self/cgroup": "3:cpu,cpuacct:/pod/one\n4:memory:/pod/one",
        "/sys/fs/cgroup/cpuacct/cpuacct.usage": "1000000000",
        "/sys/fs/cgroup/cpu/pod/one/cpu.cfs_quota_us": "200000",
        "/sys/fs/cgroup/cpu/pod/one/cpu.cfs_period_us": "100000"
      }
      const read = yield* open(PressureSensors.cpu, files)
      yield* read
      yield* TestClock.adjust("1 second")
      files["/sys/fs/cgroup/cpuacct/cpuacct.usage"] = "2800000000"
      assert.closeTo((yield* read) ?? NaN, 0.9, 1e-9)
    }))

  it.effect("reads what the process used where there is no container", () =>
    Effect.gen(function*() {
      const read = yield* open(PressureSensors.cpu, {})
      yield* read
      yield* TestClock.adjust("10 minutes")
      assert.isAtLeast((yield* read) ?? NaN, 0)
    }))
})

describe("the sensor of the memory", () => {
  it.effect("reads what of its limit a container cannot give back", () =>
    Effect.gen(function*() {
      const files = {
        "/sys/fs/cgroup/cgroup.controllers": "cpu memory",
        "/proc/self/cgroup": "0::/",
        "/sys/fs/cgroup/memory.current": mebi(950),
        "/sys/fs/cgroup/memory.max": mebi(1000),
        "/sys/fs/cgroup/memory.stat": `anon 1\ninactive_file ${mebi(100)}`
      }
      assert.closeTo((yield* Effect.flatten(open(PressureSensors.memory, files))) ?? NaN, 0.85, 1e-9)
    }))

  it.effect("reads the heap where nothing is limited", () =>
    Effect.gen(function*() {
      const files = {
        "/proc/self/cgroup": "4:memory:/",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": mebi(950),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"
      }
      for (const machine of [files, {}]) {
        const pressure = (yield* Effect.flatten(open(PressureSensors.memory, machine))) ?? NaN
        assert.isTrue(pressure > 0 && pressure < 1, `${pressure}`)
      }
    }))
})

describe("the sensor of the event loop", () => {
  it.live("reads how long it was held up", () =>
    Effect.gen(function*() {
      const read = yield* PressureSensors.eventLoop.open
      yield* Effect.sleep("30 millis")
      yield* Effect.sync(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200))
      yield* Effect.sleep("30 millis")
      assert.isAtLeast((yield* read) ?? NaN, 1.5)
    }))
})
