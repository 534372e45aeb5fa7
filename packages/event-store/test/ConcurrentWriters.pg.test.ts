import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Arr from "effect/Array"
import * as Config from "effect/Config"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type Attempt, AttemptLine } from "./Attempt.ts"
import { assertInOrder, believedAt, explains } from "./LogModel.ts"

const Services = Layer.mergeAll(
  PostgresTest.layer({ migrations: [migrations] }),
  SecureRandom.layerWebCrypto,
  NodeServices.layer
)

const decode = Schema.decodeEffect(AttemptLine)
const show = Schema.encodeSync(AttemptLine)

/** What came of an attempt, in a word or two. */
const kindOf = ({ answer, asked }: Attempt): string => {
  if (answer._tag === "Refused") return answer.reason._tag
  return `${answer.duplicate ? "repeated" : "written"} ${asked._tag}${asked.inTransaction ? " in a transaction" : ""}`
}

const everyKind = [
  ...["Append", "Revision"].flatMap((asked) => [
    `written ${asked}`,
    `written ${asked} in a transaction`,
    `repeated ${asked}`
  ]),
  "VersionConflict",
  "ConditionFailed",
  "EventIdTaken",
  "UnknownFact",
  "RevisionConflict",
  "FactRetracted",
  "InvalidAppend"
]

layer(Services, { excludeTestServices: true })("8 writers of 2 tenants in 2 processes", (it) => {
  it.effect("leave a log that explains every answer they got", () =>
    Effect.gen(function*() {
      const seed = yield* Config.String("STRATA_TEST_SEED").pipe(Config.withDefault("1"))
      const url = yield* PostgresTest.url
      const store = yield* EventStorePostgres.make({ name: "explained" })
      const children = yield* Effect.forEach([1, 5], (first) =>
        ChildProgram.start(new URL("./programs/randomWriters.ts", import.meta.url), {
          args: ["explained", seed, `${first}`, "4", "100"],
          env: { DATABASE_URL: url }
        }), { concurrency: "unbounded" })
      yield* Effect.forEach(children, (child) =>
        child.waitFor((line) =>
          line === "ready"
        ), { discard: true })
      yield* Effect.forEach(children, (child) => child.send("go"), { discard: true })
      const lines = yield* Effect.forEach(
        children,
        (child) => child.lines.pipe(Stream.takeUntil((line) => line === "done"), Stream.runCollect),
        { concurrency: "unbounded" }
      )
      const attempts = yield* Effect.forEach(
        lines.flat().filter((line) => line.startsWith("told ")),
        (line) => decode(line.slice(5))
      )
      deepStrictEqual(attempts.length, 800)

      const log = yield* Effect.flatMap(store.head, (head) =>
        store.readLog({ after: Fact.beginning, limit: Number(head) }))
      assertInOrder(log)
      const unexplained = attempts.filter((attempt) =>
        !explains(log, attempt)
      )
      deepStrictEqual(unexplained.map((attempt) => show(attempt)), [], `seed ${seed}`)
      const written = attempts.flatMap(({ answer }) =>
        answer._tag === "Written" && !answer.duplicate ? answer.places.map(({ position }) => position) : []
      )
      deepStrictEqual(written.toSorted((a, b) => Number(a - b)), log.map(({ position }) => position))

      // What is kept beside the log says what the log says, and so do reads.
      for (const tenant of ["default", "acme"]) {
        yield* Effect.gen(function*() {
          const mine = log.filter((fact) => fact.tenant === tenant)
          deepStrictEqual(
            (yield* store.streams.list()).map(({ stream, version }) => [stream, version]),
            Arr.dedupe(mine.map(({ stream }) => stream)).toSorted().map((stream) => [
              stream,
              mine.filter((fact) => fact.stream === stream).length
            ])
          )
          for (const place of [log.length / 4, log.length / 2, log.length].map(Math.floor)) {
            const { facts } = yield* store.read({
              knownAt: { position: Fact.Position.make(BigInt(place)) },
              limit: 1000
            })
            deepStrictEqual(
              facts.map(({ position }) => position),
              believedAt(log, tenant, place).map(({ position }) => position)
            )
          }
        }).pipe(Effect.provideService(CurrentTenant, tenant))
      }

      // The run meant something: others came between question and answer, and every kind of answer was given.
      assert.isAbove(attempts.filter(({ from, to }) => to - from > 4n).length, 100)
      const kinds = new Set(attempts.map(kindOf))
      deepStrictEqual(everyKind.filter((kind) => !kinds.has(kind)), [], `seed ${seed}`)
    }), 60_000)
})
