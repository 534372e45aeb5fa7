/**
 * What a store asks of the keys of subjects: to seal what it is about to write, and to open what it has read.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import { EventStoreError } from "./EventStore.ts"
import type { EventId, Fact, Position } from "./Fact.ts"
import { NoSubjectKeys } from "./PersonalData.ts"
import * as PreparedAppend from "./PreparedAppend.ts"
import { type Correction, UnknownFact } from "./Revision.ts"
import { isSealed, type Sealable } from "./SealedFields.ts"
import { SubjectKeys } from "./SubjectKeys.ts"
import type { Erasing } from "./SubjectKeyTable.ts"

/**
 * Seals and opens the facts of one store.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sealing {
  /** The data of each with its personal fields sealed. All are of this tenant. */
  readonly seal: (
    tenant: string,
    sealables: ReadonlyArray<Sealable>
  ) => Effect.Effect<ReadonlyArray<Schema.Json>, EventStoreError>
  /** The facts as they were appended, but for what was erased. */
  readonly open: (facts: ReadonlyArray<Fact>) => Effect.Effect<ReadonlyArray<Fact>, EventStoreError>
}

/**
 * A store that is to hear of erasures of subjects of whom it holds something. It is told where its log has the fact that tells
 * of one; with null, it writes that fact.
 *
 * @category models
 * @since 0.1.0
 */
export interface Listener {
  readonly store: string
  readonly told: (
    erasure: Erasing & { readonly key: number },
    position: Position | null
  ) => Effect.Effect<Position | null>
}

/**
 * Without keys, nothing personal is written or read.
 *
 * @category constructors
 * @since 0.1.0
 */
export const none: Sealing = {
  seal: (_tenant, sealables) => {
    const [first] = sealables
    return first === undefined ? Effect.succeed([]) : refuse(first.eventId)
  },
  open: (facts) => {
    const sealed = facts.find(isSealed)
    return sealed === undefined ? Effect.succeed(facts) : refuse(sealed.eventId)
  }
}

const refuse = (eventId: Fact["eventId"]) =>
  Effect.fail(new EventStoreError({ reason: new NoSubjectKeys({ eventId }) }))

/**
 * With the keys that are in scope; `none` where there are none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ofStore = (listener: Listener): Effect.Effect<Sealing> =>
  Effect.flatMap(
    Effect.serviceOption(SubjectKeys),
    Option.match({
      onNone: () => Effect.succeed(none),
      onSome: (keys) => keys.sealing(listener)
    })
  )

/**
 * Seals the data of corrections. `find` gives the fact that one revises: where it stands and what chain it is of is part of
 * what is authenticated.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ofCorrection = (
  { seal }: Sealing,
  find: (eventId: EventId) => Effect.Effect<Fact | undefined, EventStoreError>
) =>
  Effect.fnUntraced(function*({ data, personal, revises }: Correction) {
    const named = yield* find(revises)
    if (named === undefined) {
      return yield* new EventStoreError({ reason: new UnknownFact({ eventId: revises }) })
    }
    const [sealed] = yield* seal(yield* PreparedAppend.currentTenant, [{
      path: "data",
      stream: named.stream,
      eventId: named.revises ?? named.eventId,
      data: data ?? null,
      personal: personal ?? []
    }])
    return sealed!
  })
