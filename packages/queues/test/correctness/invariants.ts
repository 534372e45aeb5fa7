/**
 * What must hold of a history, each a function that is its definition: it gives what contradicts it, or nothing.
 */
import type { Stats } from "@strata/queues/QueueCatalog"
import { all, type Event } from "./History.ts"

/** A message that the database still has, and what it holds. */
export interface Kept {
  readonly id: number
  readonly n: number
}

/** What the database has in the end. */
export interface Remains {
  /** In the order in which they were written. */
  readonly effects: ReadonlyArray<Kept>
  /** What the effects added up to, each with its own row. */
  readonly balance: number
  readonly dead: ReadonlyArray<Kept>
  /** Ready, for later, behind others of its key, or under a lease. */
  readonly waiting: ReadonlyArray<Kept>
  /** Rows of each table that is empty when nothing is left to do. */
  readonly left: { readonly [table: string]: number }
  readonly stats: Stats
}

export interface History {
  readonly events: ReadonlyArray<Event>
  readonly remains: Remains
}

export type Invariant = (history: History) => ReadonlyArray<string>

/** A message whose sender was told that it is there has had its effect, was given up, or still waits. */
export const nothingAcknowledgedIsLost: Invariant = ({ events, remains }) => {
  const there = new Set(placesOf(remains))
  return all(events, "Told").filter(({ id }) => !there.has(id)).map(({ id, n }) => `${n}, message ${id}, is lost`)
}

/** What is there, or was begun, somebody has asked for; nobody was told that it is not; and it is one message. */
export const nothingIsThereThatWasNotSent: Invariant = ({ events, remains }) => {
  const asked = new Set(all(events, "Asked").map(({ n }) => n))
  const refused = new Set(all(events, "Refused").map(({ n }) => n))
  const seen = [
    ...all(events, "Told"),
    ...all(events, "Begun"),
    ...remains.effects,
    ...remains.dead,
    ...remains.waiting
  ]
  const idsOf = new Map<number, Set<number>>()
  for (const { id, n } of seen) idsOf.set(n, (idsOf.get(n) ?? new Set()).add(id))
  return [...idsOf].flatMap(([n, ids]) => [
    ...(asked.has(n) ? [] : [`${n} was never asked for`]),
    ...(refused.has(n) ? [`${n} was refused, and is there`] : []),
    ...(ids.size > 1 ? [`${n} is there as the messages ${[...ids].join(", ")}`] : [])
  ])
}

/**
 * Of two messages of a key, the one that was sent first begins first, and the other one begins when its effect is committed. A key
 * has one sender, who sends one thing after the other, so ids are the order of what it was told of. A process that stood still
 * says late what it did, so its word does not count for when that was.
 */
export const keysAreInOrder: Invariant = ({ events, remains }) => {
  const keyOf = new Map(all(events, "Asked").map(({ key, n }) => [n, key]))
  const keyed = all(events, "Told").filter(({ n }) => typeof keyOf.get(n) === "string")
  const begun = earliest(all(events, "Begun"))
  const stopped = all(events, "Struck").filter(({ signal }) => signal === "SIGSTOP")
  const stood = new Set(stopped.map(({ worker }) => worker))
  const did = earliest(all(events, "Did").filter(({ worker }) => !stood.has(worker)))
  const effects = earliest(remains.effects.map(({ id }, at) => ({ id, at })))
  return [...Map.groupBy(keyed, ({ n }) => keyOf.get(n))].flatMap(([key, told]) => {
    const ids = told.map(({ id }) => id).filter((id) => begun.has(id)).sort((one, other) => one - other)
    return ids.slice(1).flatMap((id, index) => {
      const before = ids[index]!
      return [
        ...(begun.get(before)! < begun.get(id)! ? [] : [`${key}: ${id} began before ${before}`]),
        ...((did.get(before) ?? 0) < begun.get(id)! ? [] : [`${key}: ${id} began while ${before} ran`]),
        ...((effects.get(before) ?? -1) < (effects.get(id) ?? Infinity)
          ? []
          : [`${key}: ${id} was done before ${before}`])
      ]
    })
  })
}

/**
 * Who has lost a message to another changes nothing any more: what is said of a message is accepted from the last one who was given
 * it, and one of all who had it commits its effect.
 */
export const theLastOneWhoHasItDecides: Invariant = ({ events }) => {
  const claims = new Map<number, Array<Extract<Event, { readonly _tag: "Claimed" }>>>()
  for (const claimed of all(events, "Claimed")) {
    for (const id of claimed.ids) claims.set(id, [...(claims.get(id) ?? []), claimed])
  }
  const late = all(events, "Settled").filter(({ accepted }) => accepted).flatMap(({ askedAt, ids, token, worker }) =>
    ids.filter((id) => {
      const of = claims.get(id) ?? []
      const own = of.find((claim) => claim.token === token)
      return own !== undefined && of.some((other) => other.claimedAt > own.claimedAt && other.at < askedAt)
    }).map((id) => `${worker} settled ${id} when others had it`)
  )
  return [
    ...late,
    ...repeated(all(events, "Did").map(({ id }) => id)).map((id) => `several had the effect of ${id} committed`)
  ]
}

/** The effect of a message happened once, and all of it; of one that was given up, or still waits, at most once. */
export const effectsHappenOnce: Invariant = ({ events, remains: { balance, effects, ...remains } }) => {
  const open = new Set([...remains.dead, ...remains.waiting].map(({ id }) => id))
  const done = new Set(effects.map(({ id }) => id))
  const claimed = new Set(all(events, "Claimed").flatMap(({ ids }) => ids))
  const total = effects.reduce((sum, { n }) => sum + n, 0)
  return [
    ...repeated(effects.map(({ id }) => id)).map((id) => `the effect of ${id} happened several times`),
    ...[...claimed].filter((id) => !done.has(id) && !open.has(id)).map((id) => `${id} is gone without its effect`),
    ...(balance === total ? [] : [`the effects are worth ${total}, and the balance is ${balance}`])
  ]
}

/** When all is over nothing is left: nothing waits, nobody holds anything, and what was counted says so. */
export const allIsQuiet: Invariant = ({ remains: { dead, left, stats, waiting } }) => {
  const counted = {
    ready: [stats.ready, 0],
    later: [stats.later, 0],
    parked: [stats.parked, 0],
    leased: [stats.leased, 0],
    dead: [stats.dead, dead.length],
    sent: [stats.sent, stats.done + stats.dead]
  }
  return [
    ...waiting.map(({ id, n }) => `${n}, message ${id}, still waits`),
    ...Object.entries(left).filter(([, rows]) => rows > 0).map(([table, rows]) => `${table} still has ${rows} rows`),
    ...Object.entries(counted).filter(([, [count, is]]) => count !== is)
      .map(([name, [count, is]]) => `${count} are counted as ${name}, and there are ${is}`)
  ]
}

/** All of them, by their names. */
export const invariants = {
  nothingAcknowledgedIsLost,
  nothingIsThereThatWasNotSent,
  keysAreInOrder,
  theLastOneWhoHasItDecides,
  effectsHappenOnce,
  allIsQuiet
}

/** What contradicts any of them. */
export const violations = (history: History): ReadonlyArray<string> =>
  Object.entries(invariants).flatMap(([name, invariant]) => invariant(history).map((text) => `${name}: ${text}`))

const placesOf = ({ dead, effects, waiting }: Remains): ReadonlyArray<number> =>
  [...effects, ...dead, ...waiting].map(({ id }) => id)

const earliest = (events: ReadonlyArray<{ readonly id: number; readonly at: number }>): ReadonlyMap<number, number> => {
  const first = new Map<number, number>()
  for (const { at, id } of events) first.set(id, Math.min(first.get(id) ?? Infinity, at))
  return first
}

const repeated = (ids: ReadonlyArray<number>): ReadonlyArray<number> => {
  const counts = new Map<number, number>()
  for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1)
  return [...counts].filter(([, count]) => count > 1).map(([id]) => id)
}
