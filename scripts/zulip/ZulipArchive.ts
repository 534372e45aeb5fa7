/**
 * Archives in the layout of the public Zulip archives: a `.tar.gz` of `zulip_json/<stream>/<topic>.json`, each file an
 * array of `{ content, id, sender_full_name, timestamp }`. Other files in it are passed over.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { createReadStream } from "node:fs"
import { pipeline } from "node:stream"
import { createGunzip } from "node:zlib"
import * as Tar from "tar-stream"

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
  size: number,
  onProgress: (fraction: number) => void
): Stream.Stream<TopicFile, ArchiveUnreadable> =>
  entries(file, size, onProgress).pipe(
    Stream.mapEffect((entry) => readTopicFile(file, entry)),
    Stream.filterMap((found) => Option.match(found, { onNone: () => Result.failVoid, onSome: Result.succeed }))
  )

const entries = (file: string, size: number, onProgress: (fraction: number) => void) =>
  Stream.unwrap(Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const source = createReadStream(file)
        source.on("data", () => onProgress(size === 0 ? 1 : source.bytesRead / size))
        const extract = Tar.extract()
        // An error of any of the three ends the iteration below with it.
        pipeline(source, createGunzip(), extract, () => {})
        return { source, extract }
      }),
      ({ extract, source }) =>
        Effect.sync(() => {
          source.destroy()
          extract.destroy()
        })
    ),
    ({ extract }) => Stream.fromAsyncIterable(extract, (cause) => unreadable(file, cause))
  ))

const unreadable = (file: string, cause: unknown) =>
  new ArchiveUnreadable({ file, detail: cause instanceof Error ? cause.message : String(cause) })

const pathPattern = /^(?:\.\/)?zulip_json\/([^/]+)\/([^/]+)\.json$/

const decodeMessages = Schema.decodeUnknownResult(
  Schema.fromJsonString(Schema.NonEmptyArray(ZulipMessage)),
  { errors: "first" }
)

type Entry = Tar.Extract extends AsyncIterable<infer E> ? E : never

const readTopicFile = Effect.fnUntraced(function*(file: string, entry: Entry) {
  const path = entry.header.name
  const match = pathPattern.exec(path)
  const tooLarge = entry.header.size > maxFileSize
  if (entry.header.type !== "file" || match === null || tooLarge) {
    entry.resume()
    return match !== null && tooLarge
      ? Option.some<TopicFile>({ path, topic: Result.fail(`larger than ${maxFileSize} bytes`) })
      : Option.none()
  }
  const chunks = yield* Stream.runCollect(
    Stream.fromAsyncIterable(entry, (cause) => unreadable(file, cause))
  )
  const [, stream = "", name = ""] = match
  const topic = Result.mapBoth(decodeUtf8(Buffer.concat(chunks.filter((chunk) => chunk instanceof Uint8Array))), {
    onFailure: (problem) => problem,
    onSuccess: (messages): Topic => ({
      stream: unescape(stream),
      name: unescape(name),
      messages: oldestFirst(messages)
    })
  })
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
