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
 * **Example** (An event with a field that its author can have erased)
 *
 * ```ts
 * const Noted = EventDefinition.make("Noted", {
 *   fields: { author: Schema.String, text: Schema.String },
 *   personal: { subject: (event) => event.author, fields: ["text"] }
 * })
 * ```
 *
 * @since 0.1.0
 */
import { cast } from "effect/Function"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import type { Fact, NewFact } from "./Fact.ts"
import { Erased, isErased, type PersonalFields } from "./PersonalData.ts"
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
 * One event of a domain. `Fields` are those of whoever makes it, `Keys` the ones among them that are personal.
 *
 * @category models
 * @since 0.1.0
 */
export interface EventDefinition<
  Tag extends string,
  Fields extends Schema.Struct.Fields,
  Keys extends keyof Fields = never
> {
  readonly tag: Tag
  readonly version: number
  /** Of its value as it is read, tag included: in the place of a personal field may stand `Erased`. */
  readonly schema: Schema.TaggedStruct<Tag, Readable<Fields, Keys>>
  /** Of its value as it is made. */
  readonly written: Schema.TaggedStruct<Tag, Fields>
  /** By version: how data stored at it becomes that of the next one. */
  readonly upcasts: Upcasts
  /** Which fields are personal, and whose. */
  readonly personal: ReadonlyArray<Claim>
  /** Makes the event, checking its fields. */
  readonly make: Schema.TaggedStruct<Tag, Fields>["make"]
}

/**
 * The fields of an event as it is read.
 *
 * @category models
 * @since 0.1.0
 */
export type Readable<Fields extends Schema.Struct.Fields, Keys extends keyof Fields> = [Keys] extends [never] ? Fields
  : { readonly [K in keyof Fields]: K extends Keys ? OrErased<Fields[K]> : Fields[K] }

/**
 * A field that may be erased. One that may be absent still may.
 *
 * @category models
 * @since 0.1.0
 */
export type OrErased<Field extends Schema.Constraint> = Field extends Schema.optionalKey<infer Present>
  ? Schema.optionalKey<Schema.Union<readonly [typeof Erased, Present]>>
  : Schema.Union<readonly [typeof Erased, Field]>

/**
 * Fields of an event that are personal, and whose: a function of the event gives the subject, by a name that says nothing of
 * who it is. See `PersonalData`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Personal<Fields extends Schema.Struct.Fields, Keys extends keyof Fields> {
  readonly subject: (event: Schema.Struct.Type<Fields>) => string
  readonly fields: ReadonlyArray<Keys>
}

/**
 * The same, of whatever event.
 *
 * @category models
 * @since 0.1.0
 */
export interface Claim {
  readonly subject: (event: unknown) => string
  readonly fields: ReadonlyArray<string>
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
  /** Whether an event of it has personal fields: then what a fact says may change, once, to less. */
  readonly isPersonal: boolean
  /** True when the set defines the fact's type. */
  readonly has: (fact: Pick<Fact, "type">) => boolean
  /** The event a fact holds, in its newest shape. */
  readonly decode: (fact: Fact) => Result.Result<A, EventDecodeError>
  /** The event as a fact to append. An event that does not fit its own schema is a defect. */
  readonly encode: (event: { readonly _tag: string }, place: EventPlace) => NewFact
  /**
   * The event as what a fact should have been: a correction with its data and the version of their shape, whatever the fact's
   * is. Refused when the fact is not of the event's type. A field that is erased stays so. An event that does not fit its own
   * schema is a defect.
   */
  readonly encodeCorrection: (event: { readonly _tag: string }, saying: CorrectionSaying) => Correction
}

/**
 * Where and with what an event is appended: everything of a fact that is not its content.
 *
 * @category models
 * @since 0.1.0
 */
export type EventPlace = Omit<NewFact, "type" | "data" | "schemaVersion" | "personal">

/**
 * Which fact is corrected, why and by whom, and when it holds: everything of a correction that is not its content.
 *
 * @category models
 * @since 0.1.0
 */
export type CorrectionSaying = Omit<Correction, "_tag" | "type" | "data" | "schemaVersion" | "personal">

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
 * Defines an event. `version` defaults to 1; from version 2 on, `upcasts` must have an entry for each older version. `personal` names
 * the fields that may have to be erased, for one subject or for each of several.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <
  const Tag extends string,
  const Fields extends Schema.Struct.Fields,
  const Keys extends keyof Fields & string = never
>(
  tag: Tag,
  options: {
    readonly version?: number | undefined
    readonly fields: Fields
    readonly upcasts?: Upcasts | undefined
    readonly personal?: Personal<Fields, Keys> | ReadonlyArray<Personal<Fields, Keys>> | undefined
  }
): EventDefinition<Tag, Fields, Keys> => {
  const { fields, upcasts = {}, version = 1 } = options
  for (let older = 1; older < version; older++) {
    if (upcasts[older] === undefined) {
      throw new RangeError(`${tag} is at version ${version} but has no upcast from version ${older}`)
    }
  }
  const personal = claimsOf(options.personal)
  const written = Schema.TaggedStruct(tag, fields)
  const schema = personal.length === 0 ? written : Schema.TaggedStruct(tag, readable(fields, personal))
  return {
    tag,
    version,
    schema: cast(schema),
    written,
    upcasts,
    personal,
    make: (input, options) => written.make(input, options)
  }
}

const claimsOf = <Fields extends Schema.Struct.Fields, Keys extends keyof Fields & string>(
  personal: Personal<Fields, Keys> | ReadonlyArray<Personal<Fields, Keys>> | undefined
): ReadonlyArray<Claim> => {
  if (personal === undefined) return []
  const claims = "subject" in personal ? [personal] : personal
  return claims.map(({ fields, subject }) => ({ fields, subject: (event) => subject(cast(event)) }))
}

/** The fields as they are read. */
const readable = (fields: Schema.Struct.Fields, personal: ReadonlyArray<Claim>): Schema.Struct.Fields => {
  const read: Record<PropertyKey, Schema.Constraint> = { ...fields }
  const seen = new Set<string>()
  for (const name of personal.flatMap(({ fields }) => fields)) {
    const field = fields[name]
    if (field === undefined) throw new RangeError(`${name} is personal, and no field of the event`)
    if (seen.has(name)) throw new RangeError(`${name} is personal twice`)
    seen.add(name)
    read[name] = SchemaAST.isOptional(field.ast)
      ? Schema.optionalKey(
        Schema.Union([Erased, Schema.requiredKey(cast<unknown, Schema.optionalKey<Schema.Constraint>>(field))])
      )
      : Schema.Union([Erased, field])
  }
  return read
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
  const codecOf = (event: { readonly _tag: string }) => {
    const codec = codecs.get(event._tag)
    if (codec === undefined) throw new RangeError(`${event._tag} is not an event of this set`)
    return codec
  }
  return {
    tags: definitions.map((definition) => definition.tag),
    isPersonal: definitions.some(({ personal }) => personal.length > 0),
    has: (fact) => codecs.has(fact.type),
    decode: (fact) =>
      codecs.get(fact.type)?.decode(fact) ??
        refuse(fact, "unknown type", `known types are ${[...codecs.keys()].join(", ")}`),
    encode: (event, place) => ({ ...place, type: event._tag, ...codecOf(event).encode(event) }),
    encodeCorrection: (event, saying) => ({
      ...saying,
      _tag: "Correction",
      type: event._tag,
      ...codecOf(event).encodeCorrection(event)
    })
  }
}

/** What a set needs of a definition, whatever its fields. */
interface AnyDefinition {
  readonly tag: string
  readonly version: number
  readonly schema: Schema.Codec<{ readonly _tag: string }, unknown>
  readonly written: Schema.Codec<{ readonly _tag: string }, unknown>
  readonly upcasts: Upcasts
  readonly personal: ReadonlyArray<Claim>
}

/** What of a fact or a correction is its content. */
type Content = Pick<NewFact, "personal"> & { readonly schemaVersion: number; readonly data: StoredData }

const makeCodec = <A extends { readonly _tag: string }>(
  definition: AnyDefinition & { schema: Schema.Codec<A, unknown> }
) => {
  const json = Schema.toCodecJson(definition.schema)
  const decodeJson = Schema.decodeUnknownResult(json)
  const { personal, version } = definition
  const encoder = (schema: Schema.Codec<unknown, unknown>) => {
    const encodeJson = Schema.encodeUnknownSync(Schema.toCodecJson(schema))
    return (event: unknown): Content => {
      const { _tag, ...data } = cast<unknown, StoredData>(encodeJson(event))
      return personal.length === 0
        ? { schemaVersion: version, data }
        : { schemaVersion: version, data, personal: fieldsOf(personal, event, data, schema === definition.schema) }
    }
  }
  const encode = encoder(definition.written)
  return {
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
    encode,
    encodeCorrection: personal.length === 0 ? encode : encoder(definition.schema)
  }
}

/** The personal fields that an event has, and whose they are. What was read may be erased: there is nothing left to seal. */
const fieldsOf = (
  personal: ReadonlyArray<Claim>,
  event: unknown,
  data: StoredData,
  mayBeErased: boolean
): ReadonlyArray<PersonalFields> =>
  personal.flatMap(({ fields, subject }) => {
    const present = fields.filter((field) => data[field] !== undefined && !(mayBeErased && isErased(data[field])))
    return present.length === 0 ? [] : [{ subject: subject(event), fields: present }]
  })

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
