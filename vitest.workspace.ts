import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

const root = import.meta.dirname

/** Programs that tests start find their modules compiled by whoever started before them. */
process.env["NODE_COMPILE_CACHE"] ??= join(root, "node_modules/.cache/node-compile-cache")

/** Workspace packages are resolved to their sources, so no build is needed to run a test. */
const resolve = { conditions: ["strata:source"] }

/** Rooms that have tests: every package, the scripts and the examples. */
const rooms = [...readdirSync(join(root, "packages")).map((name) => `packages/${name}`), "scripts", "examples"]

/**
 * One project after the other, since a worker does not outlive its project; and in each of them first the files whose tests are given the
 * most time, so that none of them is left over with a core idle.
 */
class LongestFirst extends BaseSequencer {
  override sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const given = new Map(files.map((file) => [file, timeGiven(file.moduleId)]))
    return Promise.resolve(
      files.toSorted((one, other) =>
        one.project.name.localeCompare(other.project.name) || given.get(other)! - given.get(one)!
      )
    )
  }
}

/** The time-outs that a file sets, together, in milliseconds. */
const timeGiven = (file: string): number =>
  Array.from(
    readFileSync(file, "utf8").matchAll(/\b([1-9]\d{1,2}_000)\b/g),
    ([, millis]) => Number(millis!.replace("_", ""))
  )
    .reduce((sum, millis) => sum + millis, 0)

export default defineConfig({
  resolve,
  ssr: { resolve },
  test: {
    // Half of the time a test waits for the database or for a process, so one worker leaves a core idle.
    maxWorkers: 2,
    // Room for what lives as long as a statement, as the server has it.
    execArgv: ["--min-semi-space-size=32", "--max-semi-space-size=64"],
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        resolve,
        ssr: { resolve },
        test: {
          name: "unit",
          root,
          // A worker goes on to the next file with the modules it has.
          isolate: false,
          include: rooms.map((room) => `${room}/test/**/*.test.ts`),
          exclude: ["**/*.pg.test.ts", "**/node_modules/**"],
          testTimeout: 30_000
        }
      },
      {
        resolve,
        ssr: { resolve },
        test: {
          name: "postgres",
          root,
          isolate: false,
          include: rooms.map((room) => `${room}/test/**/*.pg.test.ts`),
          exclude: ["**/node_modules/**"],
          globalSetup: [join(root, "packages/testing/src/vitestGlobalSetup.ts")],
          testTimeout: 60_000,
          hookTimeout: 60_000
        }
      }
    ]
  }
})
