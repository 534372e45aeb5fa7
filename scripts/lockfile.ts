/**
 * Completes `package-lock.json`: npm leaves out packages for other platforms than the one it ran on (and those that
 * the registry it asked does not carry), and then `npm ci` refuses the lockfile, here or elsewhere.
 *
 * Run it as `npm run lockfile` after adding or upgrading a package; `--check` only looks. Such packages are named by
 * exact version in the `optionalDependencies` of the one that wants them, and their name tells their platform, so the
 * entry can be written without asking anybody.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"

export interface Entry {
  readonly version?: string
  readonly resolved?: string
  readonly link?: boolean
  readonly dev?: boolean
  readonly optional?: boolean
  readonly os?: ReadonlyArray<string> | string
  readonly cpu?: ReadonlyArray<string> | string
  readonly libc?: ReadonlyArray<string>
  readonly optionalDependencies?: { readonly [name: string]: string }
}

export interface Packages {
  readonly [path: string]: Entry
}

const systems = ["linux", "darwin", "win32", "windows", "android", "freebsd", "openharmony"]
const processors = ["x64", "arm64", "arm", "ia32", "ppc64", "riscv64", "s390x", "loong64"]

/** What a platform package's name says of the machines it is for. */
export const platformOf = (name: string): Pick<Entry, "os" | "cpu" | "libc"> => {
  const words = name.split(/[/-]/)
  const os = words.find((word) => systems.includes(word))
  const cpu = words.find((word) => processors.includes(word))
  const libc = words.some((word) => word.startsWith("musl"))
    ? "musl"
    : words.some((word) => word.startsWith("gnu") || word === "glibc")
    ? "glibc"
    : undefined
  return {
    ...(cpu === undefined ? {} : { cpu: [cpu] }),
    ...(libc === undefined || os !== "linux" ? {} : { libc: [libc] }),
    ...(os === undefined ? {} : { os: [os === "windows" ? "win32" : os] })
  }
}

/** Where Node would find a package for the one at `path`, nearest first. */
const candidates = (path: string, name: string): ReadonlyArray<string> => {
  const places: Array<string> = []
  let directory = path
  for (;;) {
    places.push(directory === "" ? `node_modules/${name}` : `${directory}/node_modules/${name}`)
    if (directory === "") return places
    const parent = directory.lastIndexOf("node_modules/")
    directory = parent <= 0 ? "" : directory.slice(0, parent - 1)
  }
}

/** The entries that optional dependencies ask for and the lockfile lacks. */
export const missingEntries = (packages: Packages): Packages => {
  const missing: Record<string, Entry> = {}
  for (const [path, entry] of Object.entries(packages)) {
    for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
      if (candidates(path, name).some((place) => place in packages)) continue
      const { cpu, libc, os } = platformOf(name)
      missing[`node_modules/${name}`] = {
        version,
        ...(cpu === undefined ? {} : { cpu }),
        ...(entry.dev === true ? { dev: true } : {}),
        ...(libc === undefined ? {} : { libc }),
        optional: true,
        ...(os === undefined ? {} : { os })
      }
    }
  }
  return missing
}

// ------------------------------------------------------------------------------------------------------------ main

const Lockfile = Schema.fromJsonString(Schema.Record(Schema.String, Schema.Unknown), { space: 2 })

class LockfileIncomplete extends Schema.TaggedError<LockfileIncomplete>()("LockfileIncomplete", {
  lacks: Schema.Array(Schema.String)
}) {
  override readonly [Runtime.errorReported] = false
  override get message() {
    return `package-lock.json lacks ${this.lacks.join(", ")}. Run: npm run lockfile`
  }
}

const main = Effect.fnUntraced(function*(options: { readonly write: boolean }) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(import.meta.dirname, "..", "package-lock.json")
  const lock = yield* Schema.decodeEffect(Lockfile)(yield* fs.readFileString(file))
  const packages = lock["packages"] as Packages
  const missing = missingEntries(packages)
  const names = Object.keys(missing).map((place) => place.slice("node_modules/".length))
  if (names.length === 0) return yield* Console.log("package-lock.json is complete")
  if (!options.write) {
    const problem = new LockfileIncomplete({ lacks: names })
    yield* Console.log(problem.message)
    return yield* problem
  }
  const all = Object.entries({ ...packages, ...missing }).sort(([a], [b]) => a.localeCompare(b, "en"))
  const completed = { ...lock, packages: Object.fromEntries(all) }
  yield* fs.writeFileString(file, `${yield* Schema.encodeEffect(Lockfile)(completed)}\n`)
  yield* Console.log(`package-lock.json: added ${names.join(", ")}`)
})

if (import.meta.main) {
  main({ write: !process.argv.includes("--check") }).pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
}
