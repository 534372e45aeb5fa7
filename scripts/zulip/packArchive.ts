/**
 * Packs a folder in the layout of a Zulip archive into a `.tar.gz`.
 */
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import { createGzip } from "node:zlib"

/** The small invented archive that comes with the project: messages of a pottery workshop. */
export const demoArchive = fileURLToPath(new URL("demo-archive", import.meta.url))

/** Files by their path in the archive. */
export const packFiles = Effect.fnUntraced(function*(
  files: Iterable<readonly [path: string, content: Uint8Array]>,
  target: string
) {
  const fs = yield* FileSystem.FileSystem
  yield* Stream.fromIterable(files).pipe(
    Stream.map(([path, content]) => Tar.file(path, content)),
    Stream.pipeThroughChannel(Tar.encode()),
    NodeStream.pipeThroughDuplex({ evaluate: () => createGzip() }),
    Stream.run(fs.sink(target))
  )
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
