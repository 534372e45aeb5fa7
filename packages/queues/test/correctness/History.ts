/**
 * What senders and workers did, as each of them wrote it down: values that pass between processes, a line each.
 */
import * as Schema from "effect/Schema"

/** Milliseconds of the clock of the machine, which is one for all processes. */
const at = Schema.Finite
const worker = Schema.String
const id = Schema.Int
const ids = Schema.Array(id)
/** What tells apart all that is ever asked to be sent: it is the payload, and never repeated. */
const n = Schema.Int

/** Where a process can be struck. */
export const Place = Schema.Literals([
  "after-send",
  "after-claim",
  "in-handler",
  "after-effect",
  "before-ack",
  "in-ack",
  "after-ack"
])
export type Place = typeof Place.Type

/** It is ended, or stands still. */
export const Signal = Schema.Literals(["SIGKILL", "SIGSTOP"])

/** What a connection can break under. */
export const What = Schema.Literals(["send", "claim", "settle"])
export type What = typeof What.Type

export const Event = Schema.Union([
  // A sender is about to ask for a message, is told that it is there, or knows that it is not. Neither: nobody knows.
  Schema.TaggedStruct("Asked", { at, n, key: Schema.NullOr(Schema.String) }),
  Schema.TaggedStruct("Told", { at, n, id }),
  Schema.TaggedStruct("Refused", { at, n }),

  // A worker was given messages, at a time of the database, and was answered what it said of them.
  Schema.TaggedStruct("Claimed", { at, claimedAt: Schema.Finite, worker, token: Schema.String, ids }),
  Schema.TaggedStruct("Settled", { at, askedAt: at, worker, token: Schema.String, ids, accepted: Schema.Boolean }),

  // A handler begins, has committed its effect, or finds that it was committed before.
  Schema.TaggedStruct("Begun", { at, worker, id, n, attempt: Schema.Int }),
  Schema.TaggedStruct("Did", { at, worker, id }),
  Schema.TaggedStruct("Fenced", { at, worker, id }),

  // What is done to them: the process is about to be ended or to stand still, with these messages in its hands, or a connection
  // broke under what it had asked.
  Schema.TaggedStruct("Struck", { at, worker, place: Place, signal: Signal, ids }),
  Schema.TaggedStruct("Broke", { at, worker, what: What })
])
export type Event = typeof Event.Type
export type Tag = Event["_tag"]

export const Line = Schema.fromJsonString(Event)

/** Writes down what happens. */
export type Record = (event: Event) => void

/** Those of one kind, in the order in which they were written down. */
export const all = <T extends Tag>(
  events: ReadonlyArray<Event>,
  tag: T
): ReadonlyArray<Extract<Event, { readonly _tag: T }>> =>
  events.filter((event): event is Extract<Event, { readonly _tag: T }> => event._tag === tag)

export const now = (): number => Number(process.hrtime.bigint()) / 1e6
