/**
 * Holds the direction of imports between the packages: each may import what lies below it and nothing else.
 *
 * It reads every import of `packages/<name>/src` and `packages/<name>/test` and the dependencies that each
 * `package.json` declares. Imports in comments (the examples of the documentation) do not count.
 *
 * Run it alone with `node scripts/check-dependencies.ts`; it is part of `npm run check`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"

// ----------------------------------------------------------------------------------------------------------- rules

/** What lies directly below each package; what lies below that may be imported too. */
export const below: { readonly [name: string]: ReadonlyArray<string> } = {
  postgres: [],
  outbox: ["postgres"],
  resilience: ["postgres"],
  "event-store": ["outbox"],
  queues: ["outbox", "resilience"],
  nats: ["queues"],
  projections: ["event-store", "resilience"],
  conversations: ["projections", "queues"],
  "http-api": ["conversations"],
  server: ["http-api"],
  federation: ["resilience"],
  cli: ["server"],
  console: ["http-api"],
  testing: ["projections", "queues"],
  benchmarks: ["cli", "federation", "nats", "testing"]
}

/** Packages that see only what is named for them, and not what lies below that. */
const strict = new Set(["console"])

/** Packages that only tests may import. */
const testsOnly = new Set(["testing"])

/** Rooms that must stay free of some modules, whatever is installed. */
const pure: ReadonlyArray<{ readonly room: string; readonly free: RegExp; readonly because: string }> = [
  {
    room: "packages/http-api/src/",
    free: /^(effect\/sql\b|@effect\/)/,
    because: "the contract holds schemas only, and clients load it without a database driver"
  },
  {
    room: "packages/conversations/src/domain/",
    free: /^(effect\/sql\b|@effect\/|@strata\/postgres\/(?!Timestamp$)|\.\.\/(write|read|analytics)\/)/,
    because: "the domain is pure"
  }
]

// ----------------------------------------------------------------------------------------------------------- model

/** One file of a package, by its path from the root of the repository. */
export interface SourceFile {
  readonly path: string
  readonly text: string
}

/** A package: its folder's name, the dependencies it declares and its files. */
export interface Package {
  readonly name: string
  readonly dependencies: ReadonlyArray<string>
  readonly files: ReadonlyArray<SourceFile>
}

interface Import {
  readonly line: number
  readonly specifier: string
}

// ----------------------------------------------------------------------------------------------------------- check

const scope = "@strata/"

/** Every package that `name` may import, itself left out. */
export const reachable = (name: string): ReadonlySet<string> => {
  const found = new Set(below[name])
  if (strict.has(name)) return found
  for (const next of found) {
    for (const further of below[next] ?? []) found.add(further)
  }
  return found
}

/** `import … from "x"`, `export … from "x"` and `import "x"` at the start of a line, and `import("x")` anywhere. */
const statements =
  /^[ \t]*(?:import|export)\s+(?:type\s+)?(?:(?:[\w$]+\s*,\s*)?(?:\*(?:\s+as\s+[\w$]+)?|\{[^}]*\})|[\w$]+)\s+from\s+["']([^"'\n]+)["']|^[ \t]*import\s+["']([^"'\n]+)["']|^(?!\s*(?:\*|\/\/|\/\*)).*?\bimport\(\s*["']([^"'\n]+)["']/gm

export const importsOf = (text: string): ReadonlyArray<Import> =>
  Array.from(text.matchAll(statements), (match) => {
    const specifier = match[1] ?? match[2] ?? match[3] ?? ""
    const end = match.index + match[0].length
    return { line: text.slice(0, end).split("\n").length, specifier }
  })

/** `@scope/name/Module` and `name/Module` belong to the package `@scope/name` and `name`. */
const packageOf = (specifier: string): string =>
  specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/")

const isLocal = (specifier: string): boolean =>
  specifier.startsWith(".") || specifier.startsWith("node:") || specifier.startsWith("#")

/** The folder a relative import leads to, when that is outside of the package it stands in. */
const escapes = (path: string, specifier: string): string | undefined => {
  if (!specifier.startsWith(".")) return undefined
  const target = new URL(specifier, `file:///${path}`).pathname.slice(1)
  const home = path.split("/").slice(0, 2).join("/")
  return target.startsWith(`${home}/`) ? undefined : target
}

const checkImport = (self: Package, file: SourceFile, found: Import): ReadonlyArray<string> => {
  const at = `${file.path}:${found.line} imports ${found.specifier}`
  const inTests = file.path.startsWith(`packages/${self.name}/test/`)
  const outside = escapes(file.path, found.specifier)
  if (outside !== undefined) return [`${at}, which leaves the package: import it by its name`]

  const impure = pure.find((rule) => file.path.startsWith(rule.room) && rule.free.test(found.specifier))
  if (impure !== undefined) return [`${at}, which ${impure.room} may not: ${impure.because}`]

  if (isLocal(found.specifier)) return []
  const target = packageOf(found.specifier)
  const problems: Array<string> = []
  if (target.startsWith(scope)) {
    const name = target.slice(scope.length)
    const allowed = reachable(self.name)
    if (name !== self.name && !allowed.has(name) && !(inTests && testsOnly.has(name))) {
      problems.push(`${at}, which ${self.name} may not`)
    }
  }
  if (!inTests && target !== `${scope}${self.name}` && !self.dependencies.includes(target)) {
    problems.push(`${at}, which packages/${self.name}/package.json does not declare`)
  }
  return problems
}

/** Everything that breaks the rules, a line each. */
export const violations = (packages: ReadonlyArray<Package>): ReadonlyArray<string> =>
  packages.flatMap((self) => {
    const manifest = `packages/${self.name}/package.json`
    if (!(self.name in below)) {
      return [`${manifest}: ${self.name} has no place among the packages; give it one in scripts/check-dependencies.ts`]
    }
    const allowed = reachable(self.name)
    const declared = self.dependencies
      .filter((dependency) => dependency.startsWith(scope) && !allowed.has(dependency.slice(scope.length)))
      .map((dependency) => `${manifest} declares ${dependency}, which ${self.name} may not import`)
    const imported = self.files.flatMap((file) =>
      importsOf(file.text).flatMap((found) => checkImport(self, file, found))
    )
    return [...declared, ...imported]
  })

// ------------------------------------------------------------------------------------------------------------ read

const Manifest = Schema.fromJsonString(Schema.Struct({
  dependencies: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  peerDependencies: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  optionalDependencies: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
}))

/** Reads the packages of the repository at `root`. */
export const readPackages = Effect.fn("readPackages")(function*(root: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path

  const readRoom = Effect.fnUntraced(function*(room: string) {
    if (!(yield* fs.exists(path.join(root, room)))) return []
    const names = yield* fs.readDirectory(path.join(root, room), { recursive: true })
    return yield* Effect.forEach(
      names.filter((name) => /\.(ts|tsx|mts)$/.test(name)),
      (name) =>
        Effect.map(fs.readFileString(path.join(root, room, name)), (text) => ({
          path: `${room}/${name.replaceAll("\\", "/")}`,
          text
        }))
    )
  })

  const readPackage = Effect.fnUntraced(function*(name: string) {
    const text = yield* fs.readFileString(path.join(root, "packages", name, "package.json"))
    const manifest = yield* Schema.decodeEffect(Manifest)(text)
    const dependencies = Object.keys({
      ...manifest.dependencies,
      ...manifest.peerDependencies,
      ...manifest.optionalDependencies
    })
    const files = [...(yield* readRoom(`packages/${name}/src`)), ...(yield* readRoom(`packages/${name}/test`))]
    return { name, dependencies, files }
  })

  const names = yield* fs.readDirectory(path.join(root, "packages"))
  return yield* Effect.forEach(names.sort(), readPackage)
})

/** Said already, line by line. */
class WrongImports extends Schema.TaggedError<WrongImports>()("WrongImports", {}) {
  override readonly [Runtime.errorReported] = false
}

const main = Effect.gen(function*() {
  const path = yield* Path.Path
  const packages = yield* readPackages(path.join(import.meta.dirname, ".."))
  const found = violations(packages)
  for (const line of found) yield* Console.log(line)
  if (found.length > 0) return yield* new WrongImports()
})

if (import.meta.main) {
  main.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
}
