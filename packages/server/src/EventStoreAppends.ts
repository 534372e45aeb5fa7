/**
 * Appends to an event store over HTTP: one event, or many at once.
 *
 * @since 0.1.0
 */
import { type Append, EventStore, type ExpectedVersion } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { FactFilter } from "@strata/event-store/FactQuery"
import * as EventStoreQuery from "@strata/http-api/EventStoreQuery"
import type {
  AppendBatch,
  AppendCondition,
  AppendEvent,
  BatchEvent,
  EventFilter
} from "@strata/http-api/EventStoreWrites"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import * as Arr from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Idempotency from "./Idempotency.ts"
import * as Refusals from "./Refusals.ts"
import * as StoredEvents from "./StoredEvents.ts"

/**
 * A write that is asked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Asked<Payload> {
  readonly headers: { readonly "idempotency-key"?: string | undefined }
  readonly payload: Payload
}

/**
 * Makes the writes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const store = yield* EventStore
  const once = yield* Idempotency.make
  const own = yield* StoredEvents.make

  const write = Effect.fnUntraced(function*(
    key: string | undefined,
    append: Pick<Append, "expect" | "condition"> & { readonly facts: Arr.NonEmptyReadonlyArray<NewFact> },
    place: (field: string) => string
  ) {
    const { subject } = yield* CurrentPrincipal
    const eventIds = Arr.map(append.facts, ({ eventId }) => eventId)
    return yield* Refusals.answer(
      once({
        key,
        kept: Schema.Struct({ eventIds: Schema.NonEmptyArray(Fact.EventId) }),
        run: (record) =>
          Effect.map(
            store.append({ ...append, actor: subject, idempotency: record?.({ eventIds }) }),
            ({ duplicate, position }) => ({ eventIds, position, duplicate })
          ),
        replay: (kept, position) => ({ eventIds: kept.eventIds, position, duplicate: false })
      }),
      place
    )
  })

  const append = Effect.fnUntraced(function*({ headers, payload }: Asked<AppendEvent>) {
    const at = () => "body"
    const fact = yield* factOf(payload, at())
    const { condition, expectedVersion } = payload
    const { duplicate, eventIds } = yield* write(headers["idempotency-key"], {
      facts: [fact],
      expect: expectedVersion === undefined ? undefined : { [fact.stream]: expectedVersion },
      condition: condition && conditionOf(condition)
    }, placeIn([payload], at))
    return StoredEvents.written(yield* own.fact(Arr.headNonEmpty(eventIds)), duplicate)
  })

  const appendBatch = Effect.fnUntraced(function*({ headers, payload }: Asked<AppendBatch>) {
    const { condition, events } = payload
    const facts = yield* Effect.forEach(events, (event, index) => factOf(event, inBatch(index)))
    const { duplicate, eventIds, position } = yield* write(headers["idempotency-key"], {
      facts,
      expect: yield* expectationsOf(payload, facts),
      condition: condition && conditionOf(condition)
    }, placeIn(events, inBatch))
    return StoredEvents.writtenBatch(yield* own.upTo(position, eventIds.length), position, duplicate)
  })

  return { append, appendBatch }
})

// ---------------------------------------------------------------------------------------------------- what is asked

type NewFact = Fact.NewFact & { readonly eventId: Fact.EventId }

const inBatch = (index: number) => `body.events[${index}]`

/** What is appended, and where to: either name does. */
const factOf = Effect.fnUntraced(function*(event: BatchEvent, at: string) {
  const stream = event.streamId ?? event.aggregateId
  const data = event.eventData === undefined ? event.payload : event.eventData
  if (stream === undefined) return yield* Refusals.mistake(`${at}.streamId`, "Expected the stream")
  if (data === undefined) return yield* Refusals.mistake(`${at}.eventData`, "Expected the content")
  yield* StoredEvents.refuseReserved({ type: event.eventType, stream })
  const { causationId, correlationId, metadata, validFrom, validTo } = event
  const eventId = event.eventId ?? Fact.EventId.make(SecureRandom.uuidV7Unsafe())
  const fact: NewFact = {
    stream,
    type: event.eventType,
    data,
    eventId,
    causationId,
    correlationId,
    metadata,
    validFrom,
    validTo
  }
  return fact
})

const isStreamId = Schema.is(Schema.toType(EventStoreQuery.StreamId))

/** What the batch and its events say of streams; they must not contradict each other. */
const expectationsOf = Effect.fnUntraced(function*(batch: AppendBatch, facts: ReadonlyArray<NewFact>) {
  const expect = new Map<string, ExpectedVersion>()
  for (const [stream, expected] of Object.entries(batch.expectedVersions ?? {})) {
    if (!isStreamId(stream)) {
      return yield* Refusals.mistake(`body.expectedVersions.${stream}`, "Expected <category>-<id>")
    }
    expect.set(stream, expected)
  }
  for (const [index, { stream }] of facts.entries()) {
    const expected = batch.events[index]?.expectedVersion
    if (expected === undefined) continue
    const said = expect.get(stream) ?? expected
    if (said !== expected) {
      return yield* Refusals.mistake(
        `${inBatch(index)}.expectedVersion`,
        `Expected ${said}, as was said of ${stream} before: it is the version before the first event of the batch`
      )
    }
    expect.set(stream, expected)
  }
  return Object.fromEntries(expect)
})

const conditionOf = ({ afterPosition, noneOf }: AppendCondition) => ({
  after: afterPosition,
  noneOf: noneOf.map(filterOf)
})

const filterOf = ({ aggregateId, eventType, eventTypes, streamId, ...rest }: EventFilter): FactFilter => ({
  ...rest,
  stream: streamId ?? aggregateId,
  types: eventType === undefined ? eventTypes : [eventType, ...(eventTypes ?? [])]
})

// ------------------------------------------------------------------------------------------------------ field names

/** Names a field of an append as the request has it. */
const placeIn = (events: ReadonlyArray<BatchEvent>, at: (index: number) => string) => (field: string): string => {
  const [, index, name] = /^facts\[(\d+)\]\.(\w+)$/.exec(field) ?? []
  if (index !== undefined && name !== undefined) {
    return `${at(Number(index))}.${fieldOf(events[Number(index)], name)}`
  }
  return `body.${field.replace(/^condition\.after$/, "condition.afterPosition").replace(/^facts$/, "events")}`
}

const fieldOf = (event: BatchEvent | undefined, name: string): string => {
  switch (name) {
    case "stream":
      return event?.streamId === undefined ? "aggregateId" : "streamId"
    case "type":
      return "eventType"
    case "data":
      return event?.eventData === undefined ? "payload" : "eventData"
    default:
      return name
  }
}
