/**
 * Archives in the layout of the public Zulip archives: a `.tar.gz` of `zulip_json/<stream>/<topic>.json`, each file an
 * array of `{ content, id, sender_full_name, timestamp }`. Other files in it are passed over.
 */
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as PlatformError from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { createGunzip } from "node:zlib"

/** The archive itself cannot be read: it is not there, not a `.tar.gz`, or cut short. */
export class ArchiveUnreadable extends Schema.TaggedError<ArchiveUnreadable>()("ArchiveUnreadable", {
  file: Schema.String,
  detail: Schema.String
}) {
  override get message() {
    return `Cannot read ${this.file}: ${this.detail}`
  }
}

/** A message as the archive has it; `timestamp` is in seconds. */
export const ZulipMessage = Schema.Struct({
  id: Schema.Int,
  sender_full_name: Schema.NonEmptyString.check(Schema.isMaxLength(255)),
  timestamp: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 253_402_300_799 })),
  content: Schema.String
})

/** The messages of one topic, oldest first. */
export interface Topic {
  readonly stream: string
  readonly name: string
  readonly messages: readonly [typeof ZulipMessage.Type, ...Array<typeof ZulipMessage.Type>]
}

/** A file of the archive: a topic, or why it is none. */
export interface TopicFile {
  readonly path: string
  readonly topic: Result.Result<Topic, string>
}

/** Bytes of one file that are read at most. */
const maxFileSize = 64 * 1024 * 1024

/** Every topic file, in the archive's order. `onProgress` is told how much of the archive has been read, from 0 to 1. */
export const topicFiles = (
  file: string,
  onProgress: (fraction: number) => void
): Stream.Stream<TopicFile, ArchiveUnreadable, FileSystem.FileSystem> =>
  Stream.unwrap(Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const { size } = yield* fs.stat(file)
    let read = 0
    return fs.stream(file).pipe(
      Stream.tap((bytes) =>
        Effect.sync(() => {
          read += bytes.length
          onProgress(read / Number(size))
        })
      ),
      NodeStream.pipeThroughDuplex({ evaluate: () => createGunzip(), onError: (cause) => unreadable(file, cause) }),
      Stream.pipeThroughChannel(Tar.decode()),
      Stream.mapEffect(readTopicFile)
    )
  })).pipe(
    Stream.filterMap(Result.fromOption(() => undefined)),
    Stream.mapError((cause) => unreadable(file, cause))
  )

const unreadable = (file: string, cause: unknown): ArchiveUnreadable => {
  if (cause instanceof ArchiveUnreadable) return cause
  if (cause instanceof PlatformError.PlatformError && cause.reason._tag === "NotFound") {
    return new ArchiveUnreadable({ file, detail: "no such file" })
  }
  return new ArchiveUnreadable({ file, detail: cause instanceof Error ? cause.message : String(cause) })
}

const pathPattern = /^(?:\.\/)?zulip_json\/([^/]+)\/([^/]+)\.json$/

const decodeMessages = Schema.decodeUnknownResult(
  Schema.fromJsonString(Schema.NonEmptyArray(ZulipMessage)),
  { errors: "first" }
)

const readTopicFile = Effect.fnUntraced(function*<E>({ body, header }: Tar.Entry<E>) {
  const { path, size, type } = header
  const match = pathPattern.exec(path)
  if (type !== "File" || match === null) return Option.none<TopicFile>()
  if (size > maxFileSize) {
    return Option.some<TopicFile>({ path, topic: Result.fail(`larger than ${maxFileSize} bytes`) })
  }
  const bytes = Buffer.concat(yield* Stream.runCollect(body))
  const [, stream = "", name = ""] = match
  const topic = Result.map(
    decodeUtf8(bytes),
    (messages): Topic => ({ stream: unescape(stream), name: unescape(name), messages: oldestFirst(messages) })
  )
  return Option.some<TopicFile>({ path, topic })
})

const decodeUtf8 = (
  bytes: Uint8Array
): Result.Result<readonly [typeof ZulipMessage.Type, ...Array<typeof ZulipMessage.Type>], string> =>
  Result.flatMap(
    Result.try({
      try: () => new TextDecoder("utf-8", { fatal: true }).decode(bytes),
      catch: () => "not UTF-8"
    }),
    (text) => Result.mapError(decodeMessages(text), (error) => error.message.replaceAll(/\s+/g, " "))
  )

const oldestFirst = (messages: Topic["messages"]): Topic["messages"] => {
  const [first, ...rest] = messages.toSorted((a, b) => a.timestamp - b.timestamp || a.id - b.id)
  return [first ?? messages[0], ...rest]
}

/** Zulip writes what a file name cannot hold as `.XX`, the bytes of its UTF-8 in hexadecimal. */
const unescape = (name: string): string =>
  Result.getOrElse(
    Result.try(() => decodeURIComponent(name.replaceAll("%", "%25").replaceAll(/\.([0-9A-F]{2})/g, "%$1"))),
    () => name
  )
