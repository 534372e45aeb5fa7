/**
 * Programs as a few files. Node takes a second to find and link the hundreds of modules of a program, and a third of it to load
 * these; a run of the tests starts more than a hundred. Programs beside each other share what they have in common, and are made
 * together.
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as NodeFs from "node:fs/promises"
import * as NodePath from "node:path"
import { pathToFileURL } from "node:url"
import type { InputOptions } from "rolldown"

/**
 * Names the directory of a run's bundles in its environment. Outside of a run there is none.
 *
 * @internal
 */
export const variable = "STRATA_TEST_BUNDLES"

/**
 * The file to start instead of a program: made by the first who asks in a process, or the program itself outside of a run.
 *
 * @internal
 */
export const of = Effect.fnUntraced(function*(program: string) {
  const directory = yield* Effect.orDie(Config.option(Config.String(variable)))
  if (Option.isNone(directory)) return program
  const programs = yield* Effect.promise(() => besides(program))
  const key = programs.join("\n")
  const made = bundles.get(key) ?? (yield* Effect.cached(Effect.uninterruptible(bundle(programs, directory.value))))
  bundles.set(key, made)
  return NodePath.join(yield* made, `${NodePath.basename(program, ".ts")}.js`)
})

/** By their programs: the directories where they are. */
const bundles = new Map<string, Effect.Effect<string>>()

/** The programs of a directory that has nothing else, or the one among modules. */
const besides = (program: string): Promise<ReadonlyArray<string>> => {
  const directory = NodePath.dirname(program)
  return directory.split(NodePath.sep).includes("src")
    ? Promise.resolve([program])
    : NodeFs.readdir(directory).then((names) =>
      names.filter((name) => name.endsWith(".ts")).toSorted().map((name) => NodePath.join(directory, name))
    )
}

const bundle = (programs: ReadonlyArray<string>, directory: string) =>
  Effect.gen(function*() {
    // Other processes make the same: whoever starts it finds a whole file.
    const made = yield* Effect.promise(() =>
      NodeFs.mkdir(directory, { recursive: true }).then(() =>
        NodeFs.mkdtemp(NodePath.join(directory, `${NodePath.basename(NodePath.dirname(programs[0] ?? ""))}-`))
      )
    )
    const { rolldown } = yield* Effect.promise(() => import("rolldown"))
    const build = yield* Effect.acquireRelease(
      Effect.promise(() => rolldown(optionsOf(programs))),
      (build) => Effect.promise(() => build.close())
    )
    yield* Effect.promise(() =>
      build.write({
        dir: made,
        format: "esm",
        minify,
        codeSplitting: programs.length > 1,
        entryFileNames: "[name].js",
        footer: ({ isEntry }) => isEntry ? keepCompiled : ""
      })
    )
    return made
  }).pipe(Effect.scoped)

/** A third less to be compiled at each start, under the names that stack traces tell. */
const minify = { compress: true, mangle: false, codegen: { removeWhitespace: true } }

/** For the next start, since most of these programs are killed. */
const keepCompiled = `process.getBuiltinModule("node:module").flushCompileCache()`

const optionsOf = (programs: ReadonlyArray<string>): InputOptions => ({
  input: [...programs],
  platform: "node",
  resolve: { conditionNames: ["strata:source", "node", "import", "default"] },
  plugins: [{
    name: "where modules are",
    transform: {
      filter: { code: /import\.meta\.(?:url|dirname|main)/ },
      handler: (code, id) => placed(code, id, programs.includes(id))
    }
  }]
})

/** Modules look beside them for what is no module, and of those that may be started only programs still are. */
const placed = (code: string, id: string, isProgram: boolean): string => {
  const there = code
    .replaceAll("import.meta.url", JSON.stringify(pathToFileURL(id).href))
    .replaceAll("import.meta.dirname", JSON.stringify(NodePath.dirname(id)))
  return isProgram ? there : there.replaceAll("import.meta.main", "false")
}
