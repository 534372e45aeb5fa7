/**
 * Claims messages before they are wanted.
 *
 * **Details**
 *
 * - A consumer claims when less than half of what it wants to hold waits, and wants more as long as that is gone before the next
 *   comes. When it found all there was, it looks again when somebody says so, when the time of something has come, and in
 *   any case after `QueuePolicies.poll`.
 * - While it holds enough, it looks only for what is more urgent than anything it holds: when somebody says that there is something
 *   new, `QueuePolicies.glance` later, and in any case after `poll`. Each message that it finds takes the place of one of the least
 *   urgent that it has not begun. That one is given back, so that somebody else may begin it.
 *
 * @since 0.1.0
 */
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type * as Claims from "./Claims.ts"
import type { Consumer } from "./Consumer.ts"
import { released } from "./Holdings.ts"
import { LowWater } from "./LowWater.ts"
import * as Outage from "./Outage.ts"
import { patiently } from "./Patience.ts"

/** No message is more urgent. */
const highest = 10

/** No id is higher. */
const beyond = 9_223_372_036_854_775_807n

/** What a claim asks for: so many messages, of priorities above this. */
interface Wish extends Pick<Claims.Wish, "limit" | "suspects" | "bytes"> {
  readonly priority: number
}

/**
 * Claims until the consumer stops. Fails when the database refuses to.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = (consumer: Consumer): Effect.Effect<void, SqlError> => {
  const { holdings, hinted, hungry, setting: { capacity, claims, filter, metrics, name, now, policies, prefetch } } =
    consumer
  const lowWater = new LowWater(highest + 1)
  const asking = patiently(policies)
  const watched = Outage.make(consumer.stored.name, now, policies)

  /** What `use` makes of what was claimed. It is not interrupted: what was claimed would be nobody's until its lease has run out. */
  const ask = <A>(wish: () => Wish, use: (found: ReadonlyArray<Claims.Claimed>, wish: Wish) => A) =>
    Effect.suspend(() => {
      const begun = now()
      const above = lowWater.begin(begun)
      const asked = wish()
      const { bytes, limit, priority, suspects } = asked
      return Effect.map(
        claims.claim({
          queue: consumer.stored.id,
          worker: name,
          lease: consumer.lease,
          limit,
          suspects,
          above: above.map((id, place) => highest - place > priority ? id : beyond),
          filter,
          bytes
        }),
        (found) => {
          const ended = now()
          for (const { id, priority } of found) lowWater.reach(highest - priority, id)
          lowWater.end(above, found.length, begun, ended)
          metrics.claimed += found.length
          metrics.claims.record((ended - begun) / 1000)
          return use(found, asked)
        }
      )
    }).pipe(Effect.uninterruptible, watched, asking)

  /** True when there may be more. */
  const claim = ask(() => ({
    limit: consumer.wanted - holdings.waiting,
    // One at least, or they would wait for as long as there are others.
    suspects: Math.max(holdings.isSuspecting ? 0 : 1, capacity - consumer.running - holdings.waiting),
    priority: -1,
    bytes: policies.claimSize - holdings.bytes
  }), (found, { bytes, limit }) => {
    if (found.length >= limit && holdings.waiting === 0) consumer.wanted = Math.min(prefetch, consumer.wanted * 2)
    consumer.add(found)
    return found.length >= limit || found.reduce((sum, { size }) => sum + (size ?? 0), 0) >= bytes
  })

  const claimMoreUrgent = ask(() => ({
    limit: Math.min(capacity, prefetch),
    suspects: 0,
    priority: holdings.mostUrgent ?? -1,
    bytes: policies.claimSize
  }), (found) => {
    for (const held of holdings.giveBack(found.length)) consumer.record(held, released)
    consumer.add(found)
  })

  /** Until somebody says that there may be something, or the time of something has come. */
  const untilHinted = Effect.flatMap(
    asking(watched(claims.nextDue(consumer.stored.id))),
    (due = policies.poll) => within(Duration.min(due, policies.poll), hinted.wait)
  )

  /** Somebody said that there is something; and if half of what is held begins by and by, that is looked for with the rest. */
  const glance = Effect.andThen(hinted.wait, Pace.after(policies.glance)(Effect.void))

  const untilHungry: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    if (!consumer.isOpen || consumer.isHungry) return Effect.void
    hungry.clear()
    if (holdings.mostUrgent === highest) return Effect.andThen(hungry.wait, untilHungry)
    return within(policies.poll, Effect.raceFirst(hungry.wait, glance)).pipe(
      Effect.andThen(Effect.suspend(() => consumer.isOpen && !consumer.isHungry ? claimMoreUrgent : Effect.void)),
      Effect.andThen(untilHungry)
    )
  })

  const claiming: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    if (!consumer.isOpen) return Effect.void
    const claimed = Effect.flatMap(claim, (isMore) => {
      if (!consumer.isHungry) return untilHungry
      return isMore ? Effect.void : untilHinted
    })
    return Effect.andThen(claimed, claiming)
  })
  return claiming
}

const within = (time: Duration.Duration, signal: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.ignore(Deadline.within(time)(signal))
