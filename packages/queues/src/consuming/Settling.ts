/**
 * Tells what became of messages, and renews the leases of the others.
 *
 * **Details**
 *
 * - Leases of which all is over are told together, as soon as what is just being told is written; where all of it went well and
 *   nothing holds a key, by one statement. What is over of other leases is told every `QueuePolicies.flush`.
 * - What the database refuses for good is given up: the leases run out, and others get what they held.
 *
 * @since 0.1.0
 */
import * as Pace from "@strata/resilience/retry/Pace"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import type { SqlError } from "effect/sql/SqlError"
import type * as Claims from "./Claims.ts"
import type { Consumer } from "./Consumer.ts"
import type { Lease } from "./Holdings.ts"
import { patiently } from "./Patience.ts"

/**
 * What a consumer does with its leases.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (consumer: Consumer) => {
  const { finished, hinted, holdings, news, setting: { claims, metrics, now, policies, wake } } = consumer
  const asking = patiently(policies)
  const oneAtATime = Semaphore.makeUnsafe(1)

  /** None where it was refused. */
  const tell = <A>(statement: Effect.Effect<A, SqlError>) =>
    Effect.suspend(() => {
      const begun = now()
      return Effect.tap(asking(statement), () => Effect.sync(() => metrics.settles.record((now() - begun) / 1000)))
    }).pipe(
      Effect.tapError((error) =>
        Effect.logError(`Queue ${consumer.stored.name}: what became of messages was not written`, error)
      ),
      Effect.option
    )

  const count = ({ dead, done, released, retried }: Claims.Settlement) => {
    metrics.settled.done += done.length
    metrics.settled.released += released.length
    metrics.settled.retried += retried.length
    metrics.settled.dead += dead.length
  }

  const forget = (lease: Lease) => {
    if (lease.open === 0 || lease.isLost) holdings.leases.delete(lease.token)
  }

  /** Leases of which all went well. */
  const settlePlain = Effect.fnUntraced(function*(leases: ReadonlyArray<Lease>) {
    const said = new Map(leases.map((lease) => [lease.token, lease.take()]))
    const settled = yield* tell(claims.settleLeases([...said.keys()], consumer.stored.settings.history !== undefined))
    for (const token of Option.getOrElse(settled, () => [])) {
      const settlement = said.get(token)
      if (settlement !== undefined) count(settlement)
    }
  })

  /** What is over of a lease. */
  const settlePart = Effect.fnUntraced(function*(lease: Lease) {
    const said = lease.take()
    lease.isPart = lease.open > 0
    const settled = yield* tell(claims.settle(lease.token, said))
    if (Option.getOrElse(settled, () => false)) count(said)
    else lease.isLost = true
    // The time of what is tried again may be sooner than all that is known.
    if (said.retried.length > 0) hinted.set()
    if (said.released.length > 0) yield* wake
  })

  const settle = (leases: ReadonlyArray<Lease>): Effect.Effect<void> =>
    leases.length === 0 ? Effect.void : oneAtATime.withPermit(Effect.gen(function*() {
      const plain = leases.filter(({ isPart, isPlain, open }) => isPlain && open === 0 && !isPart)
      if (plain.length > 0) yield* settlePlain(plain)
      for (const lease of leases) if (lease.hasNews) yield* settlePart(lease)
      for (const lease of leases) forget(lease)
      // What waited behind a key, or until fewer messages run, may be claimed now.
      const { maxRunning } = consumer.stored.settings
      if (maxRunning !== undefined || leases.some(({ hasKeys }) => hasKeys)) hinted.set()
    }))

  const extend = Effect.suspend(() => {
    const tokens = [...holdings.leases.keys()]
    return tokens.length === 0
      ? Effect.void
      : Effect.map(asking(claims.extend(tokens, consumer.lease)), (kept) => {
        for (const token of tokens) {
          const lease = holdings.leases.get(token)
          if (lease === undefined || kept.has(token)) continue
          lease.isLost = true
          forget(lease)
        }
      })
  })

  return {
    /** Tells of leases as soon as they are over. */
    settling: Effect.forever(Effect.andThen(finished.wait, Effect.suspend(() => settle(news.splice(0))))),

    /** Tells what is over of leases of which something still runs. */
    flushing: Effect.suspend(() =>
      settle([...holdings.leases.values()].filter(({ hasNews, open }) => hasNews && open > 0))
    ).pipe(Pace.every(policies.flush)),

    /** Renews leases in time. */
    extending: Effect.forever(
      Effect.suspend(() => Pace.after(Duration.times(consumer.lease, 1 / 3))(extend))
    ),

    /** Tells all that is over, after what is just being told. */
    settleAll: Effect.suspend(() => settle([...new Set([...news.splice(0), ...holdings.leases.values()])]))
  }
}
