/**
 * What the lanes of one member read of topics, once for all of them.
 *
 * **Details**
 *
 * Where most of a topic's partitions are about equally far in lanes of this member, pages of the whole topic are read, and each lane takes
 * its part: as many messages as there are lanes, so that each of them gets about a batch, which it fills from the next page. Pages end at
 * multiples of that, so lanes that are near each other meet at the same ones. One is kept until all lanes have passed it. Others, and a
 * lane that is alone, ask for their own.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { SqlError } from "effect/sql/SqlError"
import type * as TopicLog from "../TopicLog.ts"
import type { Owned } from "./Membership.ts"

/**
 * A partition, and how far it is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Place extends Pick<Owned, "topic" | "partition" | "partitions"> {
  readonly cursor: bigint
}

/**
 * Messages in order, and the hints that the topic had before they were looked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Portion extends TopicLog.Page {
  readonly hints: number
}

/**
 * Reads for a lane, at most a batch.
 *
 * @category models
 * @since 0.1.0
 */
export type Take = (wanted: Omit<TopicLog.Wanted, "limit">) => Effect.Effect<Portion, SqlError>

/**
 * What reading needs.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly read: TopicLog.Read
  /** Hints that a topic had so far. */
  readonly hintsOf: (topic: number) => number
  readonly batchSize: number
  readonly lanes: number
}

/**
 * Gives a lane its way to read.
 *
 * @category models
 * @since 0.1.0
 */
export interface Feed {
  readonly join: (held: ReadonlySet<Place>) => Take
  /** Keeps nothing of what was read. */
  readonly forget: () => void
}

/** A page of a whole topic. */
interface Whole extends Pick<TopicLog.Wanted, "topic" | "partitions"> {
  readonly after: bigint
  /** Where it ends, once it is there and full; one that is not is read again. */
  end: bigint | undefined
  readonly page: Effect.Effect<Portion, SqlError>
}

/** Partitions that are further apart are read apart. */
export const apart = 5000n

/** Messages in a page of all at most: that of hundreds of lanes would be a statement without end, and all of it in memory. */
const largest = 5000

/** A batch is put together from so many pages, since keys are never shared evenly. */
const mostLooks = 2

/**
 * The feed of a member.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ batchSize, hintsOf, lanes, read }: Options): Feed => {
  const size = Math.min(batchSize * lanes, largest)
  const joined: Array<ReadonlySet<Place>> = []
  /** No map: of what was taken out of one that lives on, the collector finds the next, and takes it for used. */
  let pages: ReadonlyArray<Whole> = []

  const placesOf = (topic: number) => joined.flatMap((held) => [...held].filter((place) => place.topic === topic))

  const ask = (wanted: TopicLog.Wanted): Effect.Effect<Portion, SqlError> =>
    Effect.suspend(() => {
      const hints = hintsOf(wanted.topic)
      return Effect.map(read(wanted), (page) => ({ ...page, hints }))
    })

  /** Whether most of a topic's partitions are about there, not all of them in one lane. */
  const isSharedAt = ({ of, partitions, topic }: Pick<TopicLog.Wanted, "of" | "partitions" | "topic">): boolean => {
    const after = of[0]!.cursor
    if (lanes === 1 || of.length === partitions || of.some(({ cursor }) => cursor !== after)) return false
    const near = placesOf(topic).filter(({ cursor }) => cursor - after <= apart && after - cursor <= apart)
    return near.length > of.length && 2 * near.length >= partitions
  }

  const wholeAt = (topic: number, partitions: number, after: bigint, isAhead: boolean | undefined) => {
    const places = placesOf(topic)
    pages = pages.filter((page) =>
      page.topic !== topic ||
      page.partitions === partitions &&
        places.some(({ cursor }) => cursor < (page.end ?? page.after + 1n) && page.after - cursor <= apart)
    )
    const known = pages.find((page) =>
      page.topic === topic && (page.after === after || page.after < after && after < (page.end ?? 0n))
    )
    if (known !== undefined) return Effect.succeed(known)
    return Effect.map(
      Effect.cachedWithTTL(
        ask({
          topic,
          partitions,
          of: Array.from({ length: partitions }, (_, partition) => ({ partition, cursor: after })),
          limit: size - Number(after % BigInt(size)),
          isAhead
        }),
        (exit) => Exit.isSuccess(exit) && exit.value.isFull ? Duration.infinity : Duration.zero
      ),
      (page) => {
        const whole: Whole = { topic, partitions, after, end: undefined, page }
        pages = [...pages, whole]
        return whole
      }
    )
  }

  /** What is wanted of the page of all after a position, and of those after it until there are so many or enough was looked through. */
  const gather = Effect.fnUntraced(function*(
    { isAhead, own, partitions, topic }: {
      readonly topic: number
      readonly partitions: number
      readonly own: ReadonlySet<number>
      readonly isAhead?: boolean | undefined
    },
    after: bigint
  ) {
    const messages: Array<TopicLog.StoredMessage> = []
    let seen = after
    let last: Portion | undefined
    for (let looks = 1;; looks++) {
      const whole = yield* wholeAt(topic, partitions, seen, isAhead)
      const page = yield* whole.page
      // What was read in one life is no part of what is read in another one.
      if (last !== undefined && page.life !== last.life) return { ...last, messages }
      last = page
      if (page.isFull) whole.end = page.seen
      for (const message of page.messages) {
        if (message.position <= seen || !own.has(message.partition)) continue
        if (messages.length === batchSize) {
          return { ...page, messages, seen: messages[batchSize - 1]!.position, isFull: true }
        }
        messages.push(message)
      }
      seen = page.seen
      if (!page.isFull || messages.length === batchSize || looks === mostLooks) return { ...page, messages }
    }
  })

  const take: Take = (wanted) =>
    Effect.suspend(() => {
      if (!isSharedAt(wanted)) return ask({ ...wanted, limit: batchSize })
      const own = new Set(wanted.of.map(({ partition }) => partition))
      return gather({ ...wanted, own }, wanted.of[0]!.cursor)
    })

  return {
    join: (held) => {
      joined.push(held)
      return take
    },
    forget: () => {
      pages = []
    }
  }
}
