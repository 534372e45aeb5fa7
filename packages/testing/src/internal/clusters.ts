/** Data directories for servers of tests. A copy takes a twentieth of the time of initdb. */
import * as Binaries from "@strata/postgres/EmbeddedPostgresBinaries"
import * as Cluster from "@strata/postgres/EmbeddedPostgresCluster"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"

/** @internal */
export class NotCopied extends Data.TaggedError("NotCopied")<{ readonly from: string; readonly to: string }> {
  override get message(): string {
    return `${this.from} could not be copied to ${this.to}`
  }
}

/**
 * Makes one below the directory, and returns where it is.
 *
 * @internal
 */
export const make = Effect.fnUntraced(function*(directory: string) {
  const path = yield* Path.Path
  const { directory: cluster } = yield* Cluster.open(
    path.join(directory, "cluster"),
    yield* Binaries.locate(),
    { sync: false }
  )
  return cluster
})

/**
 * Copies one to where an embedded server of this directory looks for its own, with its owner and rights.
 *
 * @internal
 */
export const copy = Effect.fnUntraced(function*(cluster: string, directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const to = path.join(directory, "postgres")
  yield* fs.makeDirectory(directory, { recursive: true })
  const child = yield* ChildProcess.make("cp", ["-a", cluster, to], { stderr: "inherit" })
  if ((yield* child.exitCode) !== 0) return yield* new NotCopied({ from: cluster, to })
}, Effect.scoped)
