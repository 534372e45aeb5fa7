/** What the workers of a test run know about its server. */
import * as Schema from "effect/Schema"

/** @internal */
export const TestRun = Schema.Struct({
  /** A superuser's access to the maintenance database. */
  adminUrl: Schema.String,
  /** Every database of the run starts with it. */
  prefix: Schema.String,
  /** Holds everything the run keeps on disk; removed at its end, and servers that run below it are stopped. */
  directory: Schema.String,
  /** A data directory as initdb makes it, which no server uses: to be copied. */
  cluster: Schema.String,
  /** How a database is copied: by files where a checkpoint costs nothing. */
  strategy: Schema.Literals(["file_copy", "wal_log"])
})

/** @internal */
export type TestRun = typeof TestRun.Type

declare module "vitest" {
  interface ProvidedContext {
    readonly strataTestRun: TestRun
  }
}
