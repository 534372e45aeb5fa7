/**
 * Definitions of a domain's events: their stored type, version, shape, and how older shapes become the newest one.
 *
 * **Details**
 *
 * A domain event is a plain object tagged with its type: `{ _tag: "MessageSent", … }`. It is stored as the type, the
 * version of its definition, and the JSON of its other fields. Stored JSON never changes: when a shape changes, the
 * definition's version goes up by one and an upcast from the version before is added. Upcasts work on stored JSON and
 * are chained, so code only ever sees the newest shape.
 *
 * **Gotchas**
 *
 * The data of a correction is taken to have the shape of the revision before, unless it says otherwise. Data in the newest
 * shape would be upcast once more: make the correction with `encodeCorrection`, which says which shape it has.
 *
 * **Example** (Two events, one of them in its second version)
 *
 * ```ts
 * import * as EventDefinition from "@strata/event-store/EventDefinition"
 * import * as Schema from "effect/Schema"
 *
 * const Opened = EventDefinition.make("Opened", { fields: { owner: Schema.String } })
 * const Deposited = EventDefinition.make("Deposited", {
 *   version: 2,
 *   fields: { cents: Schema.Int, currency: Schema.String },
 *   upcasts: { 1: (json) => ({ ...json, currency: "EUR" }) }
 * })
 * const AccountEvents = EventDefinition.set([Opened, Deposited])
 * type AccountEvent = EventDefinition.Event<typeof AccountEvents>
 * ```
 *
 * **Example** (Correcting a fact that may have been stored in an older shape)
 *
 * ```ts
 * const correct = (store: EventStore["Service"], revises: Fact.EventId) =>
 *   store.revise(AccountEvents.encodeCorrection(Deposited.make({ cents: 420, currency: "EUR" }), {
 *     revises,
 *     reason: "450 was a typing error",
 *     actor: "ada"
 *   }))
 * ```
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Fact, NewFact } from "./Fact.ts"
import type { Correction } from "./Revision.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * The stored JSON of an event: its fields by name.
 *
 * @category models
 * @since 0.1.0
 */
export type StoredData = { readonly [field: string]: Schema.Json }

/**
 * One event of a domain. `Shape` is the schema of its value, tag included.
 *
 * @category models
 * @since 0.1.0
 */
export interface EventDefinition<Tag extends string, Fields extends Schema.Struct.Fields> {
  readonly tag: Tag
  readonly version: number
  readonly schema: Schema.TaggedStruct<Tag, Fields>
  /** By version: how data stored at it becomes that of the next one. */
  readonly upcasts: Upcasts
  /** Makes the event, checking its fields. */
  readonly make: Schema.TaggedStruct<Tag, Fields>["make"]
}

/**
 * How stored data of one version becomes that of the next.
 *
 * @category models
 * @since 0.1.0
 */
export type Upcasts = { readonly [version: number]: (data: StoredData) => StoredData }

/**
 * All events of a domain: encodes and decodes any of them.
 *
 * @category models
 * @since 0.1.0
 */
export interface EventSet<out A extends { readonly _tag: string }> {
  readonly tags: ReadonlyArray<string>
  /** True when the set defines the fact's type. */
  readonly has: (fact: Pick<Fact, "type">) => boolean
  /** The event a fact holds, in its newest shape. */
  readonly decode: (fact: Fact) => Result.Result<A, EventDecodeError>
  /** The event as a fact to append. An event that does not fit its own schema is a defect. */
  readonly encode: (event: { readonly _tag: string }, place: EventPlace) => NewFact
  /**
   * The event as what a fact should have been: a correction with its data and the version of their shape, whatever the fact's
   * is. The fact keeps its type, which has to be the event's. An event that does not fit its own schema is a defect.
   */
  readonly encodeCorrection: (event: { readonly _tag: string }, saying: CorrectionSaying) => Correction
}

/**
 * Where and with what an event is appended: everything of a fact that is not its content.
 *
 * @category models
 * @since 0.1.0
 */
export type EventPlace = Omit<NewFact, "type" | "data" | "schemaVersion">

/**
 * Which fact is corrected, why and by whom, and when it holds: everything of a correction that is not its content.
 *
 * @category models
 * @since 0.1.0
 */
export type CorrectionSaying = Omit<Correction, "_tag" | "data" | "schemaVersion">

/**
 * The union of a set's events.
 *
 * @category models
 * @since 0.1.0
 */
export type Event<Set> = Set extends EventSet<infer A> ? A : never

// --------------------------------------------------------------------------------------------------------- errors

/**
 * A stored fact could not be read as an event: its type is not defined, its version is newer than the code's, its data
 * does not have the shape it should, or an upcast threw, which is the `cause` then.
 *
 * @category errors
 * @since 0.1.0
 */
export class EventDecodeError extends Schema.TaggedError<EventDecodeError>()("EventDecodeError", {
  eventId: Schema.String,
  position: Schema.BigInt,
  type: Schema.String,
  schemaVersion: Schema.Int,
  problem: Schema.Literals(["unknown type", "newer version", "wrong shape", "failed upcast"]),
  detail: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `Fact ${this.position} (${this.type} version ${this.schemaVersion}, event ${this.eventId}): ${this.problem}, ${this.detail}`
  }
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Defines an event. `version` defaults to 1; from version 2 on, `upcasts` must have an entry for each older version.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const Tag extends string, const Fields extends Schema.Struct.Fields>(
  tag: Tag,
  options: {
    readonly version?: number | undefined
    readonly fields: Fields
    readonly upcasts?: Upcasts | undefined
  }
): EventDefinition<Tag, Fields> => {
  const { fields, upcasts = {}, version = 1 } = options
  for (let older = 1; older < version; older++) {
    if (upcasts[older] === undefined) {
      throw new RangeError(`${tag} is at version ${version} but has no upcast from version ${older}`)
    }
  }
  const schema = Schema.TaggedStruct(tag, fields)
  return { tag, version, schema, upcasts, make: (input, options) => schema.make(input, options) }
}

/**
 * Gathers the events of a domain.
 *
 * @category constructors
 * @since 0.1.0
 */
export const set = <const Definitions extends ReadonlyArray<AnyDefinition>>(
  definitions: Definitions
): EventSet<Definitions[number]["schema"]["Type"]> => {
  const codecs = new Map(definitions.map((definition) => [definition.tag, makeCodec(definition)]))
  const contentOf = (event: { readonly _tag: string }) => {
    const codec = codecs.get(event._tag)
    if (codec === undefined) throw new RangeError(`${event._tag} is not an event of this set`)
    return { schemaVersion: codec.version, data: codec.encode(event) }
  }
  return {
    tags: definitions.map((definition) => definition.tag),
    has: (fact) => codecs.has(fact.type),
    decode: (fact) =>
      codecs.get(fact.type)?.decode(fact) ??
        refuse(fact, "unknown type", `known types are ${[...codecs.keys()].join(", ")}`),
    encode: (event, place) => ({ ...place, type: event._tag, ...contentOf(event) }),
    encodeCorrection: (event, saying) => ({ ...saying, _tag: "Correction", ...contentOf(event) })
  }
}

/** What a set needs of a definition, whatever its fields. */
interface AnyDefinition {
  readonly tag: string
  readonly version: number
  readonly schema: Schema.Codec<{ readonly _tag: string }, unknown>
  readonly upcasts: Upcasts
}

const makeCodec = <A extends { readonly _tag: string }>(
  definition: AnyDefinition & { schema: Schema.Codec<A, unknown> }
) => {
  const json = Schema.toCodecJson(definition.schema)
  const decodeJson = Schema.decodeUnknownResult(json)
  const encodeJson = Schema.encodeUnknownSync(json)
  return {
    version: definition.version,
    decode: (fact: Fact): Result.Result<A, EventDecodeError> => {
      if (fact.schemaVersion > definition.version) {
        return refuse(fact, "newer version", `the newest known one is ${definition.version}`)
      }
      if (!isStoredData(fact.data)) return refuse(fact, "wrong shape", "the data is not an object")
      let data: StoredData = fact.data
      for (let version = fact.schemaVersion; version < definition.version; version++) {
        const upcast = Result.try(() => definition.upcasts[version]!(data))
        if (Result.isFailure(upcast)) {
          return Result.fail(decodeError(fact, "failed upcast", `from version ${version}`, upcast.failure))
        }
        data = upcast.success
      }
      return Result.mapError(
        decodeJson({ ...data, _tag: definition.tag }),
        (error) => decodeError(fact, "wrong shape", error.message)
      )
    },
    encode: (event: unknown): StoredData => {
      const { _tag, ...data } = encodeJson(event) as StoredData
      return data
    }
  }
}

const isStoredData = (data: Schema.Json): data is StoredData =>
  typeof data === "object" && data !== null && !Array.isArray(data)

const decodeError = (fact: Fact, problem: EventDecodeError["problem"], detail: string, cause?: unknown) =>
  new EventDecodeError({
    eventId: fact.eventId,
    position: fact.position,
    type: fact.type,
    schemaVersion: fact.schemaVersion,
    problem,
    detail,
    ...(cause === undefined ? {} : { cause })
  })

const refuse = (
  fact: Fact,
  problem: EventDecodeError["problem"],
  detail: string
): Result.Result<never, EventDecodeError> => Result.fail(decodeError(fact, problem, detail))
