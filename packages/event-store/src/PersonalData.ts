/**
 * Personal data: what facts hold of somebody, who may want it erased from a log in which nothing is ever changed.
 *
 * **When to use**
 *
 * Use `personal` of an event definition for the fields that say something of a person; `SubjectKeys` gives the keys, and
 * forgets them. Where there are no definitions, `personal` of a fact or a correction says the same.
 *
 * **Details**
 *
 * A personal field is stored sealed: encrypted with AES-256-GCM under a key of the one it is about, its *subject*, bound to
 * the tenant, the stream, the fact and the field it stands in. A store opens it for whoever reads, so events are decoded,
 * upcast and folded as if it were plain. To erase a subject is to destroy that key. From then on every read, as known at
 * whatever moment, has `Erased` in the place of the field: nobody can open it any more, the store no more than others.
 *
 * An erasure is told by a fact of the system, `$subject.erased` in the stream `$subject-<digest>`: see `erasureOf`. What a
 * projection holds of the subject is folded again from then on, in the streams that `SubjectKeys.streamsOf` lists.
 *
 * **Gotchas**
 *
 * - Only the data of facts is sealed. Streams, types, metadata, actors, reasons, ids and published messages are as they are: put
 *   nothing personal there, and name subjects by what says nothing by itself, as a UUID does.
 * - Questions look at what is stored: a condition on data never fits a personal field, and neither does one within it.
 * - An upcast sees what a reader sees: the field, or an `Erased` that it has to leave alone.
 * - How long a sealed field is shows.
 *
 * **Example** (A message that its sender can have erased)
 *
 * ```ts
 * import * as EventDefinition from "@strata/event-store/EventDefinition"
 * import * as PersonalData from "@strata/event-store/PersonalData"
 * import * as Schema from "effect/Schema"
 *
 * const MessageSent = EventDefinition.make("MessageSent", {
 *   fields: { senderId: Schema.String, content: Schema.String },
 *   personal: { subject: (event) => event.senderId, fields: ["content"] }
 * })
 *
 * const show = (event: typeof MessageSent.schema.Type) =>
 *   PersonalData.isErased(event.content) ? "This message was erased" : event.content
 * ```
 *
 * @since 0.1.0
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { EventId, type Fact, Position, StreamId } from "./Fact.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What stands in the place of a field whose subject was erased. `subject` is the digest of who that was.
 *
 * @category models
 * @since 0.1.0
 */
export const Erased = Schema.TaggedStruct("Erased", { subject: Schema.String })
export type Erased = typeof Erased.Type

/**
 * True for what stands in the place of an erased field.
 *
 * @category guards
 * @since 0.1.0
 */
export const isErased: (value: unknown) => value is Erased = Schema.is(Erased)

/**
 * Fields of a fact's data, by their names, and whose they are.
 *
 * @category models
 * @since 0.1.0
 */
export interface PersonalFields {
  /** Who the fields are about, as the application names them: 1 to 512 characters. Never stored. */
  readonly subject: string
  readonly fields: ReadonlyArray<string>
}

/**
 * The stream that tells of a subject's erasures.
 *
 * @category getters
 * @since 0.1.0
 */
export const aboutSubject = (digest: string): StreamId => StreamId.make(`${prefix}${digest}`, { disableChecks: true })

/**
 * The digest of the subject whose erasures a stream tells of; none for any other stream.
 *
 * @category getters
 * @since 0.1.0
 */
export const subjectOf = (stream: string): Option.Option<string> =>
  stream.startsWith(prefix) ? Option.some(stream.slice(prefix.length)) : Option.none()

const prefix = "$subject-"

/**
 * The type of the fact that tells of an erasure.
 *
 * @category constants
 * @since 0.1.0
 */
export const erasedType = "$subject.erased"

/**
 * What an erasure's fact says: whose key was destroyed, by digest, which one, and why. Who did it is the fact's actor.
 *
 * @category models
 * @since 0.1.0
 */
export const ErasureFact = Schema.Struct({ subject: Schema.String, key: Schema.Int, reason: Schema.String })
export type ErasureFact = typeof ErasureFact.Type

/**
 * The erasure that a fact tells of; none for any other fact. Nobody but the system writes to its streams, whatever type a fact
 * has elsewhere.
 *
 * @category getters
 * @since 0.1.0
 */
export const erasureOf = (fact: Pick<Fact, "type" | "stream" | "data">): Option.Option<ErasureFact> =>
  fact.type === erasedType && Option.isSome(subjectOf(fact.stream)) ? decodeErasure(fact.data) : Option.none()

const decodeErasure = Schema.decodeUnknownOption(ErasureFact)

// --------------------------------------------------------------------------------------------------------- errors

/**
 * A fact holds personal fields, and the store was opened without keys for them. Where it was to be appended, nothing was
 * written.
 *
 * @category errors
 * @since 0.1.0
 */
export class NoSubjectKeys extends Schema.TaggedError<NoSubjectKeys>()("NoSubjectKeys", { eventId: EventId }) {
  override get message() {
    return `Event ${this.eventId} holds personal fields, and the store has no keys for them: provide it with SubjectKeys.layer`
  }
}

/**
 * The key of a subject is wrapped under a master key that the application does not give (`unknown`), or gives with other
 * bytes (`wrong`). Nothing is erased by that: it opens again when the application gives that one.
 *
 * @category errors
 * @since 0.1.0
 */
export class MasterKeyRefused extends Schema.TaggedError<MasterKeyRefused>()("MasterKeyRefused", {
  masterKey: Schema.String,
  /** The digest of the subject. */
  subject: Schema.String,
  problem: Schema.Literals(["unknown", "wrong"])
}) {
  override get message() {
    const given = this.problem === "unknown" ? "is not among those given" : "was given with other bytes"
    return `Master key ${this.masterKey} ${given}, and the key of subject ${this.subject} is wrapped under it`
  }
}

/**
 * A sealed field does not open: it was changed or moved to another place (`does not open`), it is no sealed field any more
 * (`malformed`), or its key is not there, although nobody has erased its subject (`no key`). Nothing that was appended comes
 * to this. To go on, read after its position.
 *
 * @category errors
 * @since 0.1.0
 */
export class SealBroken extends Schema.TaggedError<SealBroken>()("SealBroken", {
  eventId: EventId,
  position: Position,
  field: Schema.String,
  problem: Schema.Literals(["malformed", "does not open", "no key"])
}) {
  override get message() {
    return `Field ${this.field} of fact ${this.eventId} at position ${this.position} is sealed and cannot be read: ${this.problem}`
  }
}
