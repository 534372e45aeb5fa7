/**
 * What a lane reads of its topics: which partitions together, and the next page while one is handled.
 *
 * **Details**
 *
 * Partitions are read together where they are about equally far; one that is far behind takes turns with the others until it has caught
 * up. While a page is handled the next one is read, and its messages are opened, since handling waits for the database most of the time.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import type { SqlError } from "effect/sql/SqlError"
import * as Handling from "../../consuming/Handling.ts"
import type { Topic, TopicMessage } from "../Topic.ts"
import type * as TopicLog from "../TopicLog.ts"
import * as Feed from "./Feed.ts"
import type { Owned } from "./Membership.ts"
import type { Diverted } from "./Retries.ts"

/**
 * A partition in a lane.
 *
 * @category models
 * @since 0.1.0
 */
export interface Held extends Owned {
  /** Up to where all is done or of others. */
  cursor: bigint
  /** What the database knows of that. */
  saved: bigint
  /** The life of the server in which it got there. */
  life: TopicLog.Life
  /** A key of it may have messages aside. */
  mayBeBusy: boolean
  /** There was nothing more when the topic was at this hint. */
  emptyAt: number
}

/**
 * A partition as it was taken.
 *
 * @category constructors
 * @since 0.1.0
 */
export const holdingOf = (owned: Owned): Held => ({
  ...owned,
  cursor: owned.position,
  saved: owned.position,
  life: null,
  mayBeBusy: true,
  emptyAt: -1
})

/**
 * Partitions that are read together, of one topic.
 *
 * @category models
 * @since 0.1.0
 */
export type Cohort = Arr.NonEmptyReadonlyArray<Held>

/**
 * A message that a handler can have, or why it cannot.
 *
 * @category models
 * @since 0.1.0
 */
export interface Opened<A> {
  readonly stored: TopicLog.StoredMessage
  readonly result: Result.Result<TopicMessage<A>, Diverted>
}

/**
 * A page, and the hints that the topic had before it was read.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page<A> extends Pick<TopicLog.Page, "life" | "seen" | "isFull"> {
  readonly messages: ReadonlyArray<Opened<A>>
  readonly hints: number
}

/**
 * What reading needs.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<A> {
  readonly held: ReadonlySet<Held>
  readonly topics: ReadonlyMap<number, Topic<A>>
  readonly feed: Feed.Feed
  readonly worker: string
  /** Hints that a topic had so far. */
  readonly hintsOf: (topic: number) => number
}

/** A page that is read before it is asked for, and for whom. */
interface Ahead<A> {
  readonly cohort: Cohort
  readonly after: bigint
  readonly page: Fiber.Fiber<Page<A>, SqlError>
}

/**
 * The pages of a lane.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A>({ feed, held, hintsOf, topics, worker }: Options<A>) => {
  const take = feed.join(held)
  let turn = 0
  let ahead: Ahead<A> | undefined

  const isOpen = (held: Held) => held.emptyAt < hintsOf(held.topic)

  /** The next ones to read; undefined when nothing is left. */
  const pick = (): Cohort | undefined => {
    const cohorts: Array<Array<Held>> = []
    for (const of of Map.groupBy(held, ({ topic }) => topic).values()) {
      const sorted = of.toSorted((one, other) => one.cursor < other.cursor ? -1 : one.cursor > other.cursor ? 1 : 0)
      let last: Held | undefined
      for (const held of sorted) {
        if (last === undefined || held.cursor > last.cursor + Feed.apart) cohorts.push([held])
        else cohorts[cohorts.length - 1]!.push(held)
        last = held
      }
    }
    const open = cohorts.filter((cohort) => cohort.some(isOpen))
    const [first, ...rest] = open[turn++ % open.length] ?? []
    return first === undefined ? undefined : [first, ...rest]
  }

  const open = (topic: Topic<A>) => (stored: TopicLog.StoredMessage): Opened<A> => ({
    stored,
    result: Result.mapBoth(topic.decode(stored.data), {
      onFailure: (failure): Diverted => ({
        topic: topic.name,
        message: stored,
        because: { dead: Handling.unreadable(0n, 1, failure, worker) }
      }),
      onSuccess: (payload): TopicMessage<A> => ({
        topic: topic.name,
        position: stored.position,
        partition: stored.partition,
        id: stored.id,
        payload,
        key: stored.key ?? undefined,
        type: stored.type,
        tenant: stored.tenant,
        headers: stored.headers ?? {},
        correlationId: stored.correlationId,
        causationId: stored.causationId ?? undefined,
        traceparent: stored.traceparent ?? undefined,
        publishedAt: stored.publishedAt,
        attempt: 1
      })
    })
  })

  const ask = ([{ partitions, topic }]: Cohort, of: TopicLog.Wanted["of"], isAhead: boolean) =>
    Effect.map(
      take({ topic, partitions, of, isAhead }),
      ({ messages, ...page }): Page<A> => ({ ...page, messages: messages.map(open(topics.get(topic)!)) })
    )

  /** The page after where partitions are. */
  const read = (cohort: Cohort): Effect.Effect<Page<A>, SqlError> =>
    Effect.suspend(() => {
      const known = ahead
      ahead = undefined
      const asked = ask(cohort, cohort, false)
      if (known === undefined) return asked
      const isFor = known.cohort.length === cohort.length &&
        cohort.every((held) => known.cohort.includes(held) && held.cursor === known.after)
      return isFor
        ? Effect.catch(Fiber.join(known.page), () => asked)
        : Effect.andThen(Effect.forkDetach(Fiber.interrupt(known.page)), asked)
    })

  /** Reads the page after one that was full, while that one is handled. */
  const readAhead = (cohort: Cohort, { seen }: Page<A>) => {
    const wanted = cohort.map(({ partition }) => ({ partition, cursor: seen }))
    return Effect.map(
      Effect.forkChild(ask(cohort, wanted, true), { startImmediately: true }),
      (page) => {
        ahead = { cohort, after: seen, page }
      }
    )
  }

  return { pick, read, readAhead }
}
