/**
 * The migration files of packages, read and checked.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Result from "effect/Result"
import * as NodeCrypto from "node:crypto"
import { fileURLToPath } from "node:url"
import { MigrationError } from "./MigrationsError.ts"
import * as Statements from "./MigrationsStatements.ts"

/**
 * A file that can be applied.
 *
 * @category models
 * @since 0.1.0
 */
export interface MigrationFile {
  readonly package: string
  readonly id: number
  readonly name: string
  /** `NNNN_name.sql`. */
  readonly file: string
  /** SHA-256 in hexadecimal digits, of the text with line feeds alone. */
  readonly checksum: string
  readonly statements: ReadonlyArray<Statements.SqlStatement>
  readonly transactional: boolean
}

/**
 * Reads the files of all packages: in the order of the packages, then of the ids.
 *
 * @category constructors
 * @since 0.1.0
 */
export const load = Effect.fnUntraced(function*(
  packages: ReadonlyArray<{ readonly name: string; readonly directory: URL }>
) {
  const all = Arr.dedupeWith(packages, (a, b) => a.name === b.name && a.directory.href === b.directory.href)
  const twice = all.find(({ name }, index) => all.findIndex((other) => other.name === name) !== index)
  if (twice !== undefined) {
    return yield* new MigrationError({
      reason: "InvalidFile",
      package: twice.name,
      message: `Two directories are given for the migrations of ${twice.name}; a package has one.`
    })
  }
  return (yield* Effect.forEach(all, loadPackage)).flat()
})

const loadPackage = Effect.fnUntraced(function*(owner: { readonly name: string; readonly directory: URL }) {
  const fs = yield* FileSystem.FileSystem
  const directory = fileURLToPath(owner.directory)
  const unreadable = (cause: { readonly message: string }) =>
    new MigrationError({
      reason: "DirectoryUnreadable",
      package: owner.name,
      message: `The migrations of ${owner.name} cannot be read: ${cause.message}. ` +
        `Is "migrations" among the "files" of its package.json?`,
      cause
    })
  const names = yield* Effect.mapError(fs.readDirectory(directory), unreadable)
  const files = yield* Effect.forEach(
    names.filter((name) => name.endsWith(".sql")),
    (file) =>
      fs.readFileString(fileURLToPath(new URL(file, owner.directory))).pipe(
        Effect.mapError(unreadable),
        Effect.flatMap((text) => parse(owner.name, file, text))
      )
  )
  const sorted = files.toSorted((a, b) => a.id - b.id)
  const twin = sorted.find((file, index) => sorted[index - 1]?.id === file.id)
  if (twin !== undefined) {
    return yield* invalid(owner.name, twin.file, "has the id of another file; give it the next free one")
  }
  return sorted
})

const invalid = (owner: string, file: string, problem: string): MigrationError =>
  new MigrationError({
    reason: "InvalidFile",
    package: owner,
    file,
    message: `The migration ${owner}/${file} ${problem}.`
  })

const pattern = /^(\d{4})_([a-z0-9][a-z0-9_-]*)\.sql$/

const transactionControl = new Set(["begin", "start", "commit", "end", "rollback", "abort", "prepare"])

const parse = Effect.fnUntraced(function*(owner: string, file: string, raw: string) {
  const match = pattern.exec(file)
  if (match === null) {
    return yield* invalid(owner, file, "must be named NNNN_name.sql: four digits, then lower case, digits, _ and -")
  }
  const text = raw.replaceAll("\r\n", "\n")
  const statements = Statements.split(text)
  if (Result.isFailure(statements)) return yield* invalid(owner, file, `is broken: ${statements.failure.message}`)
  const control = statements.success.find(({ keyword }) => transactionControl.has(keyword))
  if (control !== undefined) {
    return yield* invalid(
      owner,
      file,
      `has "${control.keyword}" on line ${control.line}; a file is one transaction by itself, so take it out`
    )
  }
  return {
    package: owner,
    id: Number(match[1]),
    name: match[2] ?? "",
    file,
    checksum: NodeCrypto.createHash("sha256").update(text).digest("hex"),
    statements: statements.success,
    transactional: !/^--\s*no transaction\s*(?:\n|$)/.test(text)
  } satisfies MigrationFile
})
