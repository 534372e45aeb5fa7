import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Arr from "effect/Array"
import * as Config from "effect/Config"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Attempt } from "./Attempt.ts"
import { believedAt } from "./LogModel.ts"
import { isSeen } from "./Look.ts"
import { assertExplained, runWriters } from "./writers.ts"

const Services = Layer.mergeAll(
  PostgresTest.layer({ migrations: [migrations] }),
  SecureRandom.layerWebCrypto,
  NodeServices.layer
)

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
  it.effect(
    "leave a log that explains every answer they got, and all that they saw meanwhile",
    () =>
      Effect.gen(function*() {
        const seed = yield* Config.String("STRATA_TEST_SEED").pipe(Config.withDefault("1"))
        const url = yield* PostgresTest.url
        const store = yield* EventStorePostgres.make({ name: "explained" })
        const { attempts, looks } = yield* runWriters({ store: "explained", seed, url, attempts: 100 })
        deepStrictEqual([attempts.length, looks.length], [800, 800])

        const log = yield* Effect.flatMap(
          store.head,
          (head) => store.readLog({ after: Fact.beginning, limit: Number(head) })
        )
        assertExplained(log, attempts)
        deepStrictEqual(looks.filter((look) => !isSeen(log, look)), [])

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
        assert.isAbove(
          looks.filter(({ from, known, seen, to }) => known === null && from < to && seen.length > 0).length,
          100
        )
        assert.isAbove(
          looks.filter(({ known, seen, valid }) => known !== null && valid !== null && seen.length > 0).length,
          50
        )
        const kinds = new Set(attempts.map(kindOf))
        deepStrictEqual(everyKind.filter((kind) => !kinds.has(kind)), [], `seed ${seed}`)
      }),
    60_000
  )
})

/** What a build gets wrong: a function of the database, what it says, and what it says there. */
const brokenBuilds: ReadonlyArray<readonly [what: string, changes: ReadonlyArray<readonly [string, string, string]>]> =
  [
    ["does not check the expected version", [
      [
        "append_fact",
        "(_expected = s.version or _expected = -2 or (_expected = -1 and s.version > 0))",
        "true"
      ],
      ["append_facts", "_slice_expected[past] = versions[stream_number]", "true"]
    ]],
    ["takes the position before the lock", [
      [
        "append_fact",
        "update store s set head = s.head + 1, head_at =",
        `select s.head into "position" from store s where s.id = _store;
      perform pg_sleep(0.002);
      update store s set head = "position" + 1, head_at =`
      ],
      [
        "append_facts",
        "from store s where s.id = _store for no key update;",
        "from store s where s.id = _store; perform pg_sleep(0.002);"
      ]
    ]],
    ["does not look for event ids", [
      ["append_fact", "f.event_id = _event_id and f.store + 0", "f.event_id = _event_id and false and f.store + 0"],
      [
        "append_facts",
        "fact.event_id = f.event_id and fact.store + 0",
        "fact.event_id = f.event_id and false and fact.store + 0"
      ]
    ]]
  ]

for (const [index, [what, changes]] of brokenBuilds.entries()) {
  layer(Services, { excludeTestServices: true })("8 writers on a build that is broken", (it) => {
    it.effect(`find out that it ${what}`, () =>
      Effect.gen(function*() {
        const { sql } = yield* Postgres
        for (const [name, says, broken] of changes) {
          const [row] = yield* sql<{ text: string }>`
            select pg_get_functiondef(oid) as text from pg_proc where proname = ${name}`
          assert.include(row!.text, says)
          yield* sql.unsafe(row!.text.replaceAll(says, broken))
        }
        const name = `broken ${index}`
        const { attempts } = yield* runWriters({ store: name, seed: "1", url: yield* PostgresTest.url, attempts: 40 })
        const store = yield* EventStorePostgres.make({ name })
        const log = yield* Effect.flatMap(store.head, (head) =>
          store.readLog({ after: Fact.beginning, limit: Number(head) }))
        assert.throws(() =>
          assertExplained(log, attempts)
        )
      }), 60_000)
  })
}
