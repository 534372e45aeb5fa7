/**
 * Holds migrations as they were released: a database in which one was applied would refuse a changed one.
 *
 * `migrations.sha256` lists every file with its digest, as `sha256sum` writes it. A file that is listed must be there and be the same; one
 * that is not listed yet is added by `node scripts/check-migrations.ts --add`, which changes no line that is there.
 *
 * Run it alone with `node scripts/check-migrations.ts`; it is part of `npm run check`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import { hash } from "node:crypto"

/** Digests by the path of their file from the root of the repository. */
export type Digests = ReadonlyMap<string, string>

const line = /^([0-9a-f]{64}) {2}(.+)$/

export const parse = (text: string): Digests =>
  new Map(
    text.split("\n").flatMap((each) => {
      const [, digest, path] = line.exec(each) ?? []
      return digest === undefined || path === undefined ? [] : [[path, digest] as const]
    })
  )

const format = (digests: Digests): string =>
  Array.from(digests, ([path, digest]) => `${digest}  ${path}\n`).toSorted((a, b) => a.slice(66) < b.slice(66) ? -1 : 1)
    .join("")

/** What is wrong, a line each. */
export const problemsOf = (listed: Digests, there: Digests): ReadonlyArray<string> => [
  ...Array.from(listed).flatMap(([path, digest]) =>
    there.get(path) === digest
      ? []
      : [
        `${path} was released and ${
          there.has(path) ? "is changed" : "is gone"
        }: restore it, and put the change into a new file`
      ]
  ),
  ...Array.from(there.keys()).filter((path) => !listed.has(path)).map((path) =>
    `${path} is not listed: run node scripts/check-migrations.ts --add`
  )
]

/** The listed ones as they are, and those that are new. */
export const added = (listed: Digests, there: Digests): Digests => new Map([...there, ...listed])

class MigrationsDiffer extends Schema.TaggedError<MigrationsDiffer>()("MigrationsDiffer", {}) {
  override readonly [Runtime.errorReported] = false
}

/** `packages/<name>/migrations…/NNNN_name.sql` */
const migration = /^[^/]+\/migrations[^/]*\/\d{4}_\w+\.sql$/

const main = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const packages = path.join(import.meta.dirname, "..", "packages")
  const list = path.join(import.meta.dirname, "migrations.sha256")
  const there = new Map<string, string>()
  for (const name of yield* fs.readDirectory(packages)) {
    for (const room of yield* fs.readDirectory(path.join(packages, name))) {
      if (!room.startsWith("migrations")) continue
      for (const file of yield* fs.readDirectory(path.join(packages, name, room))) {
        if (!migration.test(`${name}/${room}/${file}`)) continue
        const bytes = yield* fs.readFile(path.join(packages, name, room, file))
        there.set(`packages/${name}/${room}/${file}`, hash("sha256", bytes, "hex"))
      }
    }
  }
  const before = parse(yield* fs.readFileString(list))
  const isAdding = process.argv.includes("--add")
  const listed = isAdding ? added(before, there) : before
  if (isAdding) yield* fs.writeFileString(list, format(listed))
  const problems = problemsOf(listed, there)
  for (const problem of problems) yield* Console.error(problem)
  if (problems.length > 0) return yield* new MigrationsDiffer()
})

if (import.meta.main) main.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
