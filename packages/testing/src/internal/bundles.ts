/**
 * Programs as one file each. Node takes a second to find and link the hundreds of modules of a program, and a third of it to load one
 * file; a run of the tests starts more than a hundred.
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
  const made = bundles.get(program) ?? (yield* Effect.cached(Effect.uninterruptible(bundle(program, directory.value))))
  bundles.set(program, made)
  return yield* made
})

const bundles = new Map<string, Effect.Effect<string>>()

const bundle = (program: string, directory: string) =>
  Effect.gen(function*() {
    // Other processes make the same: whoever starts it finds a whole file.
    const made = yield* Effect.promise(() =>
      NodeFs.mkdir(directory, { recursive: true }).then(() =>
        NodeFs.mkdtemp(NodePath.join(directory, `${NodePath.basename(program, ".ts")}-`))
      )
    )
    const { rolldown } = yield* Effect.promise(() => import("rolldown"))
    const build = yield* Effect.acquireRelease(
      Effect.promise(() => rolldown(optionsOf(program))),
      (build) => Effect.promise(() => build.close())
    )
    const { output: [{ fileName }] } = yield* Effect.promise(() =>
      build.write({ dir: made, format: "esm", codeSplitting: false, minify, footer })
    )
    return NodePath.join(made, fileName)
  }).pipe(Effect.scoped)

/** A third less to be compiled at each start, under the names that stack traces tell. */
const minify = { compress: true, mangle: false, codegen: { removeWhitespace: true } }

/** Keeps what is compiled for the next start, since most of these programs are killed. */
const footer = `process.getBuiltinModule("node:module").flushCompileCache()`

const optionsOf = (program: string): InputOptions => ({
  input: program,
  platform: "node",
  resolve: { conditionNames: ["strata:source", "node", "import", "default"] },
  plugins: [{
    name: "where modules are",
    transform: {
      filter: { code: /import\.meta\.(?:url|dirname|main)/ },
      handler: (code, id) => placed(code, id, id === program)
    }
  }]
})

/** Modules look beside them for what is no module, and a program runs only when it is the one that was started. */
const placed = (code: string, id: string, isMain: boolean): string =>
  code
    .replaceAll("import.meta.url", JSON.stringify(pathToFileURL(id).href))
    .replaceAll("import.meta.dirname", JSON.stringify(NodePath.dirname(id)))
    .replaceAll("import.meta.main", String(isMain))
