import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert } from "@effect/vitest"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { fileURLToPath } from "node:url"

/** The blocks of a page that are marked as being in a language. */
export const blocks = (page: string, language: string): ReadonlyArray<string> =>
  Array.from(page.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms")), ([, text]) => text!)

export const guide = (name: string): string => fileURLToPath(new URL(`../../docs/${name}.md`, import.meta.url))

export const example = (name: string): string => fileURLToPath(new URL(`../${name}.ts`, import.meta.url))

/** What an example prints, without what the log says: that has a time of day. */
export const run = (name: string, cwd?: string) =>
  Effect.map(
    ChildProgram.run(new URL(`../${name}.ts`, import.meta.url), { cwd }),
    ({ stdout }) => stdout.replaceAll(/^\[.*$\n/gm, "")
  )

/** A directory in which examples may start a PostgreSQL of their own, in `.strata-example`. */
export const directory = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ directory: yield* PostgresTest.directory, prefix: "guide-" })
  yield* fs.chmod(directory, 0o711)
  yield* PostgresTest.initialise(`${directory}/.strata-example`)
  return directory
})

/**
 * Holds that a guide shows these programs as they are, in their order, and what each of them prints. The first ones may be modules that others
 * use: they print nothing and are shown only.
 */
export const assertTold = Effect.fnUntraced(function*(options: {
  readonly guide: string
  readonly modules: ReadonlyArray<string>
  readonly programs: ReadonlyArray<string>
  readonly directory?: string
}) {
  const { modules, programs } = options
  const fs = yield* FileSystem.FileSystem
  const page = yield* fs.readFileString(guide(options.guide))
  const shown = yield* Effect.forEach([...modules, ...programs], (name) => fs.readFileString(example(name)))
  assert.deepStrictEqual(blocks(page, "ts"), shown)
  const printed = yield* Effect.forEach(programs, (name) => run(name, options.directory))
  assert.deepStrictEqual(blocks(page, "text"), printed)
}, Effect.provide(NodeServices.layer))
