/**
 * What readers see of random histories of sayings and erasures: a model written to be read, with nothing of the store's own
 * code.
 */
import { deepStrictEqual } from "@effect/vitest/utils"
import type { EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type ChatStore, contents, events, garden, lobby, Said } from "./chatRoom.ts"

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

/** Stands for one of the facts that are there by then. */
const Picked = between(0, 30)
const Subject = between(1, 3)

const Say = Schema.TaggedStruct("Say", { subject: Subject, garden: Schema.Boolean, word: between(0, 9) })
const Correct = Schema.TaggedStruct("Correct", { pick: Picked, word: Schema.NullOr(between(0, 9)) })
const Retract = Schema.TaggedStruct("Retract", { pick: Picked })
const Repeat = Schema.TaggedStruct("Repeat", { pick: Picked })
const Erase = Schema.TaggedStruct("Erase", { subject: Subject })

export const History = Schema.Array(Schema.Union([Say, Say, Correct, Retract, Repeat, Erase])).check(
  Schema.isMinLength(3),
  Schema.isMaxLength(12)
)
type Step = typeof History.Type[number]

/** A saying as the model has it: `erasures` are those of its subject that there had been when it was said. */
interface Saying {
  readonly id: Fact.EventId
  readonly position: Fact.Position
  readonly chain: Fact.EventId
  readonly stream: Fact.StreamId
  readonly subject: number
  readonly word: string
  readonly erasures: number
  readonly retracted: boolean
}

const told = { reason: "so it is", actor: "ada" }

/** Plays a history on an empty store, and compares what its readers see at the end. */
export const check = Effect.fnUntraced(function*({ keys, store }: ChatStore, steps: ReadonlyArray<Step>) {
  const sayings: Array<Saying> = []
  const erasures = new Map<number, number>()
  const erasuresOf = (subject: number) => erasures.get(subject) ?? 0
  const written = new Set<number>()
  let ids = 0
  const nextId = () => Fact.EventId.make(`00000000-0000-7000-8000-${String(++ids).padStart(12, "0")}`)

  const append = (saying: Pick<Saying, "id" | "stream" | "subject" | "word">) => {
    written.add(saying.subject)
    return store.append({ facts: [events.encode(eventOf(saying), { stream: saying.stream, eventId: saying.id })] })
  }

  /** The saying that a step means, and the last of its chain. */
  const picked = (pick: number) => {
    const saying = sayings[pick % Math.max(sayings.length, 1)]
    const last = sayings.findLast(({ chain }) => chain === saying?.chain)
    return saying === undefined || last === undefined ? undefined : { saying, last }
  }

  const play = Effect.fnUntraced(function*(step: Step): Effect.fn.Return<void, EventStoreError> {
    if (step._tag === "Say") {
      const id = nextId()
      const { subject } = step
      const saying = { id, stream: step.garden ? garden : lobby, subject, word: `word ${step.word}` }
      const { position } = yield* append(saying)
      sayings.push({ ...saying, position, chain: id, erasures: erasuresOf(subject), retracted: false })
      return
    }
    if (step._tag === "Erase") {
      const { again, key } = yield* keys.erase({ subject: `user ${step.subject}`, ...told })
      // Who was not written about since, be it what was there before, has no key.
      deepStrictEqual(!again && key > 0, written.delete(step.subject))
      erasures.set(step.subject, erasuresOf(step.subject) + 1)
      return
    }
    const found = picked(step.pick)
    if (found === undefined) return
    const { last, saying } = found
    if (step._tag === "Repeat") {
      if (saying.id !== saying.chain) return
      const appended = yield* append(saying)
      deepStrictEqual([appended.duplicate, appended.position], [true, saying.position])
      return
    }
    if (last.retracted) return
    const id = nextId()
    if (step._tag === "Retract") {
      const { position } = yield* store.revise({ _tag: "Retraction", revises: saying.id, eventId: id, ...told })
      sayings.push({ ...last, id, position, retracted: true })
    } else if (step.word === null) {
      const { position } = yield* store.revise({
        _tag: "Correction",
        revises: saying.id,
        eventId: id,
        validFrom: Timestamp.fromMicros(0n),
        ...told
      })
      sayings.push({ ...last, id, position })
    } else {
      const corrected = { ...last, id, word: `word ${step.word}` }
      written.add(last.subject)
      const { position } = yield* store.revise(
        events.encodeCorrection(eventOf(corrected), { revises: saying.id, eventId: id, ...told })
      )
      sayings.push({ ...corrected, position, erasures: erasuresOf(last.subject) })
    }
  })

  for (const step of steps) yield* play(step)

  const shown = ({ erasures, subject, word }: Saying) => erasures < erasuresOf(subject) ? "Erased" : word
  const log = yield* store.readLog({ after: Fact.beginning })
  deepStrictEqual(contents(log), sayings.map(shown))
  for (const stream of [lobby, garden]) {
    deepStrictEqual(
      contents(yield* store.readStream(stream)),
      sayings.filter((saying) => saying.stream === stream).map(shown)
    )
  }
  for (const { position } of log) {
    const known = sayings.filter((saying) => saying.position <= position)
    const believed = known.filter((saying, index) =>
      !saying.retracted && !known.slice(index + 1).some(({ chain }) => chain === saying.chain)
    )
    deepStrictEqual(contents((yield* store.read({ knownAt: { position } })).facts), believed.map(shown))
  }
  const [first] = sayings
  if (first !== undefined) {
    deepStrictEqual(
      contents(yield* store.history(first.id)),
      sayings.filter(({ chain }) => chain === first.chain).map(shown)
    )
  }
})

const eventOf = ({ subject, word }: Pick<Saying, "subject" | "word">) =>
  Said.make({ sender: `user ${subject}`, room: "lobby", content: word })
