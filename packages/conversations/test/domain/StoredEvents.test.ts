import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it, layer } from "@effect/vitest"
import * as ConversationEvent from "@strata/conversations/domain/ConversationEvent"
import * as Fact from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { fileURLToPath } from "node:url"

const { ConversationEvents } = ConversationEvent

/** Samples of every version that was ever stored, a file each: `<type>.<version>.json`. */
const directory = fileURLToPath(new URL("./stored/", import.meta.url))

const Samples = Schema.fromJsonString(
  Schema.NonEmptyArray(Schema.Struct({
    type: Schema.String,
    schemaVersion: Schema.Int,
    data: Schema.Record(Schema.String, Schema.Json)
  }))
)
type Sample = (typeof Samples.Type)[number]

interface Definition {
  readonly tag: string
  readonly version: number
}

/** What the events' module exports is not all of it: the set decides which events there are. */
const definitions: ReadonlyArray<Definition> = Object.values(ConversationEvent).flatMap((value) =>
  Predicate.hasProperty(value, "tag") && Predicate.hasProperty(value, "version") &&
    Predicate.hasProperty(value, "upcasts")
    ? [{ tag: String(value.tag), version: Number(value.version) }]
    : []
)

const read = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const names = yield* fs.readDirectory(directory)
  return yield* Effect.forEach(names.toSorted(), (name) =>
    fs.readFileString(`${directory}/${name}`).pipe(
      Effect.flatMap((text) => Schema.decodeEffect(Samples)(text)),
      Effect.map((samples) => ({ name, samples }))
    ))
})

const toFact = ({ data, schemaVersion, type }: Sample): Fact.Fact => ({
  type,
  schemaVersion,
  data,
  position: Fact.Position.make(1n),
  stream: Fact.streamId("conversation", "sample"),
  version: 1,
  origin: Fact.Position.make(1n),
  eventId: Fact.EventId.make("00000000-0000-7000-8000-000000000001"),
  metadata: {},
  correlationId: "sample",
  causationId: null,
  tenant: "default",
  actor: null,
  traceparent: null,
  validFrom: Timestamp.fromMicros(0n),
  validTo: Timestamp.infinity,
  recordedAt: Timestamp.fromMicros(0n),
  revision: 0,
  revises: null,
  retracted: false,
  reason: null
})

/** Versions without a sample, each with what to do. */
const missing = (definitions: ReadonlyArray<Definition>, names: ReadonlyArray<string>): ReadonlyArray<string> =>
  definitions.flatMap(({ tag, version }) =>
    Arr.range(1, version).filter((each) => !names.includes(`${tag}.${each}.json`)).map((each) =>
      `${tag} version ${each} has no sample. Store one as the application does, save what ` +
      `\`select type, schema_version as "schemaVersion", data from fact where type = '${tag}' and schema_version = ${each}\` ` +
      `gives as a JSON array in stored/${tag}.${each}.json, and never change that file once the version was released.`
    )
  )

layer(NodeServices.layer)("stored events", (it) => {
  it.effect("of every version are read as the newest shape, and the newest one is stored as it was", () =>
    Effect.gen(function*() {
      for (const { name, samples } of yield* read) {
        for (const sample of samples) {
          assert.strictEqual(name, `${sample.type}.${sample.schemaVersion}.json`)
          const event = Result.getOrThrow(ConversationEvents.decode(toFact(sample)))
          const again = ConversationEvents.encode(event, { stream: Fact.streamId("conversation", "sample") })
          assert.strictEqual(again.type, sample.type)
          if (again.schemaVersion === sample.schemaVersion) {
            assert.deepStrictEqual(
              again.data,
              sample.data,
              `${sample.type} has another shape than its stored version ${sample.schemaVersion}: raise the version, add an upcast`
            )
          }
        }
      }
    }))

  it.effect("have a sample for every version of every event of the set", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(definitions.map(({ tag }) => tag).toSorted(), [...ConversationEvents.tags].toSorted())
      const names = (yield* read).map(({ name }) => name)
      assert.deepStrictEqual(missing(definitions, names), [])
    }))
})

describe("a version without a sample", () => {
  it("is named with what to do about it", () => {
    const [first, ...others] = missing([{ tag: "Moved", version: 3 }], ["Moved.1.json", "Moved.3.json"])
    assert.deepStrictEqual(others, [])
    assert.include(first, "Moved version 2 has no sample")
    assert.include(first, "stored/Moved.2.json")
  })
})
