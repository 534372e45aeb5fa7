import { readdirSync } from "node:fs"
import { join } from "node:path"
import { defineConfig } from "vitest/config"

const root = import.meta.dirname

/** Workspace packages are resolved to their sources, so no build is needed to run a test. */
const resolve = { conditions: ["strata:source"] }

/** Rooms that have tests: every package, the scripts and the examples. */
const rooms = [...readdirSync(join(root, "packages")).map((name) => `packages/${name}`), "scripts", "examples"]

export default defineConfig({
  resolve,
  ssr: { resolve },
  test: {
    // Half of the time a test waits for the database or for a process, so one worker leaves a core idle.
    maxWorkers: 2,
    projects: [
      {
        resolve,
        ssr: { resolve },
        test: {
          name: "unit",
          root,
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
