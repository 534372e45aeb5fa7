/**
 * Erasures of subjects, as projections come to them: which facts tell of one, and in which streams something is to be folded again.
 *
 * **Details**
 *
 * The fact stands in a stream of its own, and those of the subject are in any others: so every partition of every generation is
 * given it, each at its place in the log, and folds the keys again that are its own. What comes before it in the log may
 * have been applied while it could still be read, or not; from there on, it is applied as it is read now.
 *
 * That holds as long as nobody applies what comes after an erasure with keys from memory that were looked up before it. Who
 * reads its fact forgets the key. Who takes over a partition that is past it has all keys looked up again first.
 *
 * @since 0.1.0
 */
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import type { EventStoreError } from "@strata/event-store/EventStore"
import type { Fact, StreamId } from "@strata/event-store/Fact"
import type { LogFilter } from "@strata/event-store/FactQuery"
import * as PersonalData from "@strata/event-store/PersonalData"
import { SubjectKeys } from "@strata/event-store/SubjectKeys"
import * as SubjectKeysPostgres from "@strata/event-store/SubjectKeysPostgres"
import type { Postgres } from "@strata/postgres/Postgres"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Generation } from "./Generation.ts"

/**
 * An erasure: by the tenant and digest of the subject.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subject {
  readonly tenant: string
  readonly digest: string
}

/**
 * True of a fact that tells of an erasure.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isErasure = (fact: Fact): boolean => Option.isSome(PersonalData.erasureOf(fact))

/**
 * The subject whose erasures a stream tells of; undefined for any other stream.
 *
 * @category getters
 * @since 0.1.0
 */
export const subjectOf = ({ stream, tenant }: Pick<Fact, "stream" | "tenant">): Subject | undefined =>
  Option.getOrUndefined(Option.map(PersonalData.subjectOf(stream), (digest) => ({ tenant, digest })))

/**
 * A filter that erasures fit too. Theirs is a category of its own, so more may fit than did before.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withErasures = ({ types, ...filter }: LogFilter): LogFilter => ({
  ...filter,
  category: undefined,
  types: types === undefined ? undefined : [...types, PersonalData.erasedType]
})

/**
 * Has the keys of subjects looked up again before anything is opened with them, where there are keys.
 *
 * @category combinators
 * @since 0.1.0
 */
export const refreshKeys: Effect.Effect<void> = Effect.flatMap(
  Effect.serviceOption(SubjectKeys),
  Option.match({ onNone: () => Effect.void, onSome: ({ refresh }) => refresh })
)

/**
 * Of the facts those that tell of erasures to be followed. What was erased before a generation was made was never read for it: `refreshKeys`
 * sees to that whenever a partition is taken, so without keys to refresh all are followed. The margin is far more than
 * pages of the log are kept for, and than an erasure takes to commit.
 *
 * @category getters
 * @since 0.1.0
 */
export const concerning = (
  { madeAt }: Pick<Generation, "madeAt">,
  facts: ReadonlyArray<Fact>
): Effect.Effect<ReadonlyArray<Fact>> => {
  const erasures = facts.filter(isErasure)
  return erasures.length === 0
    ? Effect.succeed(erasures)
    : Effect.map(
      Effect.serviceOption(SubjectKeys),
      (keys) => erasures.filter(({ recordedAt }) => Option.isNone(keys) || recordedAt + oneMinute > madeAt)
    )
}

/** Microseconds. */
const oneMinute = 60_000_000n

/**
 * The streams that hold something of a subject, page by page: at most so many after one of them, in byte order. They are listed where
 * the keys are, so nothing is needed but the database.
 *
 * @category constructors
 * @since 0.1.0
 */
export const streamsOf = (postgres: Postgres["Service"], store: string) => {
  const page = Effect.fnUntraced(function*({ digest, tenant }: Subject, after: StreamId | undefined) {
    const { streamsOf } = yield* SubjectKeysPostgres.make(postgres)
    return yield* streamsOf({ tenant, subject: digest, store, after, limit: pageSize })
  })
  /** Does something with each page. */
  return <E, R>(
    subject: Subject,
    each: (streams: ReadonlyArray<Pick<Fact, "tenant" | "stream">>) => Effect.Effect<void, E, R>
  ): Effect.Effect<void, E | EventStoreError, R> =>
    Effect.gen(function*() {
      let after: StreamId | undefined
      do {
        const streams = yield* page(subject, after)
        yield* each(streams.map((stream) => ({ tenant: subject.tenant, stream })))
        after = streams.length < pageSize ? undefined : streams.at(-1)
      } while (after !== undefined)
    }).pipe(Effect.provideService(CurrentTenant, subject.tenant))
}

/** Streams that are looked at together. */
const pageSize = 100
