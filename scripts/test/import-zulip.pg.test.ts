import * as NodeServices from "@effect/platform-node/NodeServices"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { assert, describe, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { program } from "../import-zulip.ts"
import { demoArchive, packFiles, packFolder } from "../zulip/packArchive.ts"
import { runProgram } from "./runProgram.ts"

const importer = new URL("../import-zulip.ts", import.meta.url)

const Summary = Schema.Struct({
  conversations: Schema.Int,
  messages: Schema.Int,
  participants: Schema.Int,
  lastPosition: Schema.String,
  durationMs: Schema.Int,
  responseMinutes: Schema.Unknown,
  daily: Schema.Array(Schema.Unknown)
})
const decodeSummary = Schema.decodeUnknownEffect(Schema.fromJsonString(Summary))

/** Runs the importer as a process of its own. */
const runProcess = (url: Redacted.Redacted, ...args: ReadonlyArray<string>) =>
  ChildProgram.run(importer, { args, env: { DATABASE_URL: url } })

const runImport = (url: Redacted.Redacted, ...args: ReadonlyArray<string>) => runProgram(program, url, ...args)

/** The summary that an import which succeeded printed, without what differs from run to run. */
const summary = Effect.fnUntraced(function*(ran: { stdout: string; stderr: string; exitCode: number }) {
  assert.strictEqual(ran.exitCode, 0, ran.stderr)
  const { durationMs: _, ...rest } = yield* decodeSummary(ran.stdout)
  return rest
})
const summaryOf = (url: Redacted.Redacted, file: string) => Effect.flatMap(runImport(url, file, "--json"), summary)

const utf8 = (text: string) => new TextEncoder().encode(text)
const json = (value: unknown) => utf8(Schema.encodeSync(Schema.fromJsonString(Schema.Unknown))(value))

const temporaryFile = (name: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    return `${yield* fs.makeTempDirectoryScoped()}/${name}`
  })

const countFacts = (connection: PgConnection.PgConnection) =>
  Effect.map(
    connection.query("select coalesce(max(head), 0)::int as facts from strata.store", []),
    ({ rows }) => Number(rows[0]?.["facts"])
  )

/** How many facts the database holds now. */
const factsStored = (url: Redacted.Redacted) => Effect.scoped(Effect.flatMap(PgConnection.make({ url }), countFacts))

const untilStored = (url: Redacted.Redacted, facts: number) =>
  Effect.flatMap(PgConnection.make({ url }), (connection) =>
    countFacts(connection).pipe(
      // There are no tables yet.
      Effect.orElseSucceed(() => 0),
      Effect.repeat({ until: (stored) => stored >= facts, schedule: Schedule.spaced("5 millis") })
    )).pipe(Effect.scoped)

/** An archive of topics with a message a minute, by three people in turn, and the summary of one clean run. */
class Generated extends Context.Service<Generated, {
  readonly file: string
  readonly expected: Effect.Success<ReturnType<typeof summary>>
}>()("Generated") {}

const generate = Effect.gen(function*() {
  const file = yield* temporaryFile("generated.tar.gz")
  const topic = (n: number) =>
    Array.from({ length: 100 }, (_, i) => ({
      content: `<p>Message ${i} of topic ${n}</p>`,
      id: n * 1000 + i,
      sender_full_name: `person-${(n + i) % 3}`,
      timestamp: 1_700_000_000 + n * 100_000 + i * 60
    }))
  yield* packFiles(
    Array.from({ length: 10 }, (_, n) => [`zulip_json/1-s/t${n}.json`, json(topic(n))] as const),
    file
  )
  const clean = yield* PostgresTest.database()
  return Generated.of({ file, expected: yield* summaryOf(clean.url, file) })
})

const services = Layer.effect(Generated, generate).pipe(
  Layer.provideMerge(Layer.merge(PostgresTest.layer(), NodeServices.layer))
)

// They wait more than they work.
describe.concurrent("import:zulip", () => {
  layer(services, { excludeTestServices: true, timeout: "1 minute" })((it) => {
    it.effect("imports the demo archive, and again without adding anything", () =>
      Effect.gen(function*() {
        const url = yield* PostgresTest.url
        const file = yield* temporaryFile("demo.tar.gz")
        yield* packFolder(demoArchive, file)
        const first = yield* summary(yield* runProcess(url, file, "--json"))
        deepStrictEqual(first, {
          conversations: 4,
          messages: 21,
          participants: 5,
          // 4 starts, 21 messages, and 6 people who joined later
          lastPosition: "31",
          responseMinutes: {
            count: 9,
            mean: 195.96296296296296,
            p50: 45,
            p90: 365.4000000000002,
            p95: 868.1999999999996,
            min: 4,
            max: 1371
          },
          daily: [
            { date: "2026-01-05", messages: 11, activeConversations: 2, activeUsers: 4 },
            { date: "2026-01-06", messages: 3, activeConversations: 2, activeUsers: 3 },
            { date: "2026-01-07", messages: 6, activeConversations: 2, activeUsers: 5 },
            { date: "2026-01-10", messages: 1, activeConversations: 1, activeUsers: 1 }
          ]
        })
        deepStrictEqual(yield* summaryOf(url, file), first)
      }), 60_000)

    it.effect("skips and names malformed files, and imports the others", () =>
      Effect.gen(function*() {
        const { url } = yield* PostgresTest.database()
        const file = yield* temporaryFile("mixed.tar.gz")
        const message = { content: "<p>hello</p>", id: 1, sender_full_name: "Ada", timestamp: 1_700_000_000 }
        const good = json([message])
        const long = `${"x".repeat(150)}/${"y".repeat(150)}.json`
        yield* packFiles([
          ["README.md", utf8("not a topic")],
          ["zulip_json/1-s/not-json.json", utf8("[{")],
          ["zulip_json/1-s/not-an-array.json", utf8("{}")],
          ["zulip_json/1-s/empty.json", utf8("[]")],
          ["zulip_json/1-s/no-sender.json", json([{ ...message, sender_full_name: undefined }])],
          ["zulip_json/1-s/empty-content.json", json([message, { ...message, id: 2, content: "" }])],
          ["zulip_json/1-s/nul.json", json([{ ...message, content: "a\0b" }])],
          ["zulip_json/1-s/not-utf8.json", Uint8Array.of(0x5b, 0xff, 0x5d)],
          ["zulip_json/1-s/.hidden.20start.json", good],
          [`zulip_json/${long}`, good],
          ["zulip_json/1-s/plain.json", good]
        ], file)
        const { exitCode, stderr, stdout } = yield* runImport(url, file, "--json")
        assert.strictEqual(exitCode, 0, stderr)
        const { conversations, messages, participants } = yield* decodeSummary(stdout)
        deepStrictEqual({ conversations, messages, participants }, { conversations: 3, messages: 3, participants: 1 })
        assert.include(stderr, "7 files were skipped:")
        for (const name of ["not-json", "not-an-array", "empty", "no-sender", "empty-content", "nul", "not-utf8"]) {
          assert.include(stderr, `zulip_json/1-s/${name}.json: `)
        }
      }), 60_000)

    it.effect("says in one line what is wrong with the archive, and exits with 1", () =>
      Effect.gen(function*() {
        const url = yield* PostgresTest.url
        const fs = yield* FileSystem.FileSystem
        const broken = yield* temporaryFile("broken.tar.gz")
        const missing = yield* runImport(url, `${broken}.none`)
        deepStrictEqual(missing, {
          stdout: "",
          stderr: `Cannot read ${broken}.none: no such file\n`,
          exitCode: missing.exitCode
        })
        yield* fs.writeFileString(broken, "this is no archive")
        const { exitCode, stderr, stdout } = yield* runImport(url, broken)
        deepStrictEqual([exitCode, stdout, stderr.trim().split("\n").length], [missing.exitCode, "", 1])
        assert.strictEqual(Number(exitCode), 1)
        assert.strictEqual(Number((yield* runImport(url)).exitCode), 2)
      }), 60_000)

    it.effect(
      "killed in the middle and run again, it ends with the summary of one clean run",
      () =>
        Effect.gen(function*() {
          const { expected, file } = yield* Generated
          const { url } = yield* PostgresTest.database()
          const child = yield* ChildProgram.start(importer, { args: [file, "--json"], env: { DATABASE_URL: url } })
          yield* untilStored(url, 100)
          yield* child.kill9
          const left = yield* factsStored(url)
          assert.isBelow(left, Number(expected.lastPosition))
          deepStrictEqual(yield* summaryOf(url, file), expected)
        }),
      60_000
    )

    it.effect(
      "with the database killed in the middle and run again, it ends with the summary of one clean run",
      () =>
        Effect.gen(function*() {
          const { expected, file } = yield* Generated
          const server = yield* PrivatePostgres.make()
          const child = yield* ChildProgram.start(importer, {
            args: [file, "--json"],
            env: { DATABASE_URL: server.url }
          })
          yield* untilStored(server.url, 100)
          yield* server.kill9
          yield* server.start()
          yield* child.exitCode
          deepStrictEqual(yield* summaryOf(server.url, file), expected)
        }),
      60_000
    )
  })
})
