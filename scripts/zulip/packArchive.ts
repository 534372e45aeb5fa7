/**
 * Packs a folder in the layout of a Zulip archive into a `.tar.gz`.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import { createWriteStream } from "node:fs"
import { pipeline } from "node:stream/promises"
import { fileURLToPath } from "node:url"
import { createGzip } from "node:zlib"
import * as Tar from "tar-stream"

/** The small invented archive that comes with the project: messages of a pottery workshop. */
export const demoArchive = fileURLToPath(new URL("demo-archive", import.meta.url))

/** Files by their path in the archive. */
export const packFiles = (files: Iterable<readonly [path: string, content: Uint8Array]>, target: string) =>
  Effect.suspend(() => {
    const pack = Tar.pack()
    for (const [name, content] of files) pack.entry({ name }, content)
    pack.finalize()
    return Effect.promise(() => pipeline(pack, createGzip(), createWriteStream(target)))
  })

/** Every file of a folder. */
export const packFolder = Effect.fnUntraced(function*(folder: string, target: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const names = (yield* fs.readDirectory(folder, { recursive: true })).filter((name) => name.endsWith(".json")).sort()
  const files = yield* Effect.forEach(
    names,
    (name) => Effect.map(fs.readFile(path.join(folder, name)), (content) => [name, content] as const)
  )
  yield* packFiles(files, target)
})
