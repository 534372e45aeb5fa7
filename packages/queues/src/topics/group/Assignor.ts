/**
 * Who of a group gets which partitions.
 *
 * **Details**
 *
 * All strategies give each partition of a topic to one of the members that subscribe to it, and are functions of what they are
 * given: whoever computes an assignment comes to the same one.
 *
 * - `range`: of each topic, members get neighbouring partitions, the first ones one more where it does not come out even. Partitions of
 *   one number of several topics come together; the first members get more, the more topics there are.
 * - `roundRobin`: the partitions of all topics are dealt out, one to each member in turn.
 * - `sticky`: as even as can be, and among the even ones one of those that move the fewest partitions.
 * - `random`: as even as can be, and otherwise by chance, the same chance for everybody in one epoch of one group.
 *
 * Static members come first, in the order of their instance, then the others in the order of their ids: a static member that comes back
 * under another id is in the same place, whoever else comes and goes.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

// --------------------------------------------------------------------------------------------------------- models

/**
 * How partitions are given to members.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Strategy = Schema.Literals(["range", "roundRobin", "sticky", "random"])
export type Strategy = typeof Strategy.Type

/**
 * A partition of a topic.
 *
 * @category models
 * @since 0.1.0
 */
export interface TopicPartition<out T = string> {
  readonly topic: T
  readonly partition: number
}

/**
 * A member of a group.
 *
 * @category models
 * @since 0.1.0
 */
export interface Member<out T = string> {
  readonly id: string
  /** Of a static member. */
  readonly instance?: string | undefined
  readonly topics: ReadonlyArray<T>
  /** What it had, as of `epoch`. */
  readonly owned?: ReadonlyArray<TopicPartition<T>> | undefined
  /** Of the assignment that it had last. What was said in an earlier one is void where somebody says otherwise. Default: 0. */
  readonly epoch?: number | undefined
}

/**
 * What is to be shared.
 *
 * @category options
 * @since 0.1.0
 */
export interface Sharing<out T = string> {
  readonly strategy: Strategy
  readonly members: ReadonlyArray<Member<T>>
  /** The partitions of each topic. One that is not named has none. */
  readonly partitions: ReadonlyMap<T, number>
  /** What `random` goes by: the group and the epoch. */
  readonly seed: string
}

/**
 * The partitions of each member, by its id, in order.
 *
 * @category models
 * @since 0.1.0
 */
export type Assignment<T = string> = ReadonlyMap<string, ReadonlyArray<TopicPartition<T>>>

// ---------------------------------------------------------------------------------------------------------- assign

/**
 * Shares partitions among members.
 *
 * @category constructors
 * @since 0.1.0
 */
export const assign = <T extends string | number>(sharing: Sharing<T>): Assignment<T> => {
  const members = sharing.members.toSorted((one, other) =>
    Number(one.instance === undefined) - Number(other.instance === undefined) ||
    byName(one.instance ?? one.id, other.instance ?? other.id)
  )
  const topics = [...new Set(members.flatMap(({ topics }) => topics))].toSorted(byName)
    .filter((topic) => (sharing.partitions.get(topic) ?? 0) > 0)
  const shares = new Map(members.map((member): [Member<T>, Array<TopicPartition<T>>] => [member, []]))
  strategies[sharing.strategy]({ ...sharing, members }, topics, (member, given) => shares.get(member)!.push(given))
  const place = new Map(topics.map((topic, index) => [topic, index]))
  return new Map(
    members.map((member) => [
      member.id,
      shares.get(member)!.toSorted((one, other) =>
        place.get(one.topic)! - place.get(other.topic)! || one.partition - other.partition
      )
    ])
  )
}

type Assign = <T extends string | number>(
  sharing: Sharing<T>,
  topics: ReadonlyArray<T>,
  give: (member: Member<T>, given: TopicPartition<T>) => void
) => void

const byName = (one: string | number, other: string | number): number => one < other ? -1 : one > other ? 1 : 0

const subscribe = <T>(members: ReadonlyArray<Member<T>>, topic: T): ReadonlyArray<Member<T>> =>
  members.filter(({ topics }) => topics.includes(topic))

const partitionsOf = <T>({ partitions }: Sharing<T>, topics: ReadonlyArray<T>): ReadonlyArray<TopicPartition<T>> =>
  topics.flatMap((topic) =>
    Array.from({ length: partitions.get(topic) ?? 0 }, (_, partition) => ({ topic, partition }))
  )

const range: Assign = (sharing, topics, give) => {
  for (const topic of topics) {
    const members = subscribe(sharing.members, topic)
    const count = sharing.partitions.get(topic) ?? 0
    let partition = 0
    for (const [place, member] of members.entries()) {
      const share = Math.floor(count / members.length) + (place < count % members.length ? 1 : 0)
      for (const end = partition + share; partition < end; partition++) give(member, { topic, partition })
    }
  }
}

const roundRobin: Assign = (sharing, topics, give) => {
  const { members } = sharing
  let turn = 0
  for (const given of partitionsOf(sharing, topics)) {
    while (!members[turn % members.length]!.topics.includes(given.topic)) turn++
    give(members[turn % members.length]!, given)
    turn++
  }
}

const random: Assign = (sharing, topics, give) => {
  const next = randomOf(sharing.seed)
  balance(sharing, shuffle(partitionsOf(sharing, topics), next), shuffle(sharing.members, next), new Map(), give)
}

const sticky: Assign = (sharing, topics, give) =>
  balance(sharing, partitionsOf(sharing, topics), sharing.members, ownersOf(sharing), give)

const strategies: Record<Strategy, Assign> = { range, roundRobin, sticky, random }

// ------------------------------------------------------------------------------------------------------ what was had

const keyOf = <T>({ partition, topic }: TopicPartition<T>): string => `${partition} ${String(topic)}`

/**
 * Who had what: the claim of the latest epoch counts, and where two of one epoch contradict each other, none does.
 */
const ownersOf = <T>({ members, partitions }: Sharing<T>): ReadonlyMap<string, Member<T>> => {
  const claims = new Map<string, { readonly epoch: number; readonly member: Member<T> | undefined }>()
  for (const member of members) {
    const { epoch = 0, owned = [], topics } = member
    for (const one of owned) {
      if (!topics.includes(one.topic) || one.partition >= (partitions.get(one.topic) ?? 0)) continue
      const known = claims.get(keyOf(one))
      if (known === undefined || known.epoch < epoch) claims.set(keyOf(one), { epoch, member })
      else if (known.epoch === epoch) claims.set(keyOf(one), { epoch, member: undefined })
    }
  }
  return new Map(
    [...claims].flatMap(([key, { member }]): Array<[string, Member<T>]> => member === undefined ? [] : [[key, member]])
  )
}

// -------------------------------------------------------------------------------------------------------- balancing

type Shares<T> = ReadonlyMap<Member<T>, Set<TopicPartition<T>>>
type Had<T> = ReadonlyMap<TopicPartition<T>, Member<T> | undefined>

/** Gives partitions out as evenly as the subscriptions let, and moves as few of those that members had as that takes. */
const balance = <T>(
  sharing: Sharing<T>,
  all: ReadonlyArray<TopicPartition<T>>,
  members: ReadonlyArray<Member<T>>,
  owners: ReadonlyMap<string, Member<T>>,
  give: (member: Member<T>, given: TopicPartition<T>) => void
): void => {
  const subscribers = new Map([...sharing.partitions.keys()].map((topic) => [topic, subscribe(members, topic)]))
  const shares: Shares<T> = new Map(members.map((member) => [member, new Set()]))
  const had: Had<T> = new Map(all.map((one) => [one, owners.get(keyOf(one))]))
  for (const [one, owner] of had) if (owner !== undefined) shares.get(owner)!.add(one)
  const sizeOf = (member: Member<T>) => shares.get(member)!.size
  // Those that the fewest may have come first, so that they are not left to one who has enough.
  const free = all.filter((one) => had.get(one) === undefined).toSorted((one, other) =>
    subscribers.get(one.topic)!.length - subscribers.get(other.topic)!.length
  )
  for (const one of free) {
    const least = subscribers.get(one.topic)!.reduce((least, other) => sizeOf(other) < sizeOf(least) ? other : least)
    shares.get(least)!.add(one)
  }
  const [first] = members
  const isSame = members.every(({ topics }) =>
    topics.length === first!.topics.length && topics.every((topic) => first!.topics.includes(topic))
  )
  if (isSame) level(members, shares, had)
  else while (improve(members, shares, had, subscribers)) continue
  for (const [member, share] of shares) for (const one of share) give(member, one)
}

/** Where everybody may have everything: whoever has more than a share gives what is over to those who have less. */
const level = <T>(members: ReadonlyArray<Member<T>>, shares: Shares<T>, had: Had<T>): void => {
  const sizeOf = (member: Member<T>) => shares.get(member)!.size
  const total = members.reduce((sum, member) => sum + sizeOf(member), 0)
  // Those who have the most may have one more than others, so that the fewest move.
  const larger = new Set(
    members.toReversed().toSorted((one, other) => sizeOf(other) - sizeOf(one)).slice(0, total % members.length)
  )
  const mostOf = (member: Member<T>) => Math.floor(total / members.length) + (larger.has(member) ? 1 : 0)
  const over: Array<TopicPartition<T>> = []
  for (const [member, share] of shares) {
    // What it did not have before goes first, and then the last.
    const order = [...share].toReversed().toSorted((one, other) =>
      Number(had.get(one) === member) - Number(had.get(other) === member)
    )
    for (const one of order.slice(0, Math.max(0, share.size - mostOf(member)))) {
      share.delete(one)
      over.push(one)
    }
  }
  for (const [member, share] of shares) while (share.size < mostOf(member)) share.add(over.pop()!)
}

/**
 * Where subscriptions differ: one step to the most even assignment with the fewest moves. False when there is none left.
 *
 * That assignment is a flow of least cost, in which the load of a member costs its square, which counts before everything, and a partition
 * that is not where it was costs one. So it is reached by cancelling one cycle of negative cost after the other, among the members and a
 * place outside, from which a load comes and to which it goes.
 */
const improve = <T>(
  members: ReadonlyArray<Member<T>>,
  shares: Shares<T>,
  had: Had<T>,
  subscribers: ReadonlyMap<T, ReadonlyArray<Member<T>>>
): boolean => {
  const count = members.length
  const weight = 4 * (had.size + 1)
  const places = new Map(members.map((member, place) => [member, place]))
  // The cheapest partition that can go from one member to another.
  const cost = Array.from({ length: count }, () => Array.from({ length: count }, () => Number.POSITIVE_INFINITY))
  const what = Array.from({ length: count }, () => Array.from<TopicPartition<T> | undefined>({ length: count }))
  for (const [from, member] of members.entries()) {
    for (const one of shares.get(member)!) {
      const owner = had.get(one)
      const leaving = owner !== undefined && owner !== member ? 1 : 0
      for (const next of subscribers.get(one.topic)!) {
        const to = places.get(next)!
        const step = (owner !== undefined && owner !== next ? 1 : 0) - leaving
        if (to === from || step >= cost[from]![to]!) continue
        cost[from]![to] = step
        what[from]![to] = one
      }
    }
  }
  const loads = members.map((member) => shares.get(member)!.size)
  const outside = count
  const costOf = (from: number, to: number): number =>
    from === outside
      ? to === outside || loads[to] === 0 ? Number.POSITIVE_INFINITY : -weight * (2 * loads[to]! - 1)
      : to === outside
      ? weight * (2 * loads[from]! + 1)
      : cost[from]![to]!
  // Bellman and Ford: whoever is still reached cheaper in the last round is on a cycle of negative cost, or behind one.
  const distance = Array.from({ length: count + 1 }, () => 0)
  const before = Array.from({ length: count + 1 }, () => -1)
  let last = -1
  for (let round = 0; round <= count; round++) {
    last = -1
    for (let from = 0; from <= count; from++) {
      for (let to = 0; to <= count; to++) {
        const reached = distance[from]! + costOf(from, to)
        if (reached >= distance[to]!) continue
        distance[to] = reached
        before[to] = from
        last = to
      }
    }
    if (last < 0) return false
  }
  for (let step = 0; step <= count; step++) last = before[last]!
  const cycle: Array<readonly [from: number, to: number]> = []
  let to = last
  do {
    const from = before[to]!
    cycle.push([from, to])
    to = from
  } while (to !== last)
  for (const [from, to] of cycle) {
    if (from === outside || to === outside) continue
    const one = what[from]![to]!
    shares.get(members[from]!)!.delete(one)
    shares.get(members[to]!)!.add(one)
  }
  return true
}

// ----------------------------------------------------------------------------------------------------------- chance

/** Numbers from 0 to below 1: mulberry32, seeded by FNV-1a. */
const randomOf = (seed: string): () => number => {
  let state = 0x811c9dc5
  for (const byte of utf8.encode(seed)) state = Math.imul(state ^ byte, 0x01000193)
  return () => {
    state = state + 0x6d2b79f5 | 0
    let mixed = Math.imul(state ^ state >>> 15, 1 | state)
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed
    return ((mixed ^ mixed >>> 14) >>> 0) / 4_294_967_296
  }
}

const utf8 = new TextEncoder()

const shuffle = <A>(all: ReadonlyArray<A>, next: () => number): ReadonlyArray<A> => {
  const shuffled = [...all]
  for (let last = shuffled.length - 1; last > 0; last--) {
    const place = Math.floor(next() * (last + 1))
    const one = shuffled[last]!
    shuffled[last] = shuffled[place]!
    shuffled[place] = one
  }
  return shuffled
}
