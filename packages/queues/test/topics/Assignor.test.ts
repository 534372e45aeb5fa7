import { describe, it } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import * as Assignor from "@strata/queues/topics/group/Assignor"
import * as Arbitrary from "effect/Arbitrary"
import * as Schema from "effect/Schema"

type Member = Assignor.Member
type Topics = Readonly<Record<string, number>>

const partitions = (text: string): Array<Assignor.TopicPartition> =>
  text === ""
    ? []
    : text.split(" ").flatMap((each) => {
      const [topic, numbers] = each.split(":")
      return numbers!.split(",").map((partition) => ({ topic: topic!, partition: Number(partition) }))
    })

/** Partitions in words: `t1:0,2 t2:1`. */
const words = (share: ReadonlyArray<Assignor.TopicPartition> = []) =>
  [...Map.groupBy(share, ({ topic }) => topic)]
    .map(([topic, of]) => `${topic}:${of.map(({ partition }) => partition).join(",")}`)
    .join(" ")

const assign = (
  strategy: Assignor.Strategy,
  topics: Topics,
  members: ReadonlyArray<Member>,
  seed = "group 1"
): Record<string, string> =>
  Object.fromEntries(
    [...Assignor.assign({ strategy, members, partitions: new Map(Object.entries(topics)), seed })]
      .map(([id, share]) => [id, words(share)])
  )

const members = (subscriptions: Readonly<Record<string, string>>): ReadonlyArray<Member> =>
  Object.entries(subscriptions).map(([id, topics]) => ({ id, topics: topics === "" ? [] : topics.split(" ") }))

/** Members as they were after an assignment. */
const after = (shares: Readonly<Record<string, string>>, some: ReadonlyArray<Member>, epoch = 1) =>
  some.map((member) => ({ ...member, owned: partitions(shares[member.id] ?? ""), epoch }))

const every: ReadonlyArray<Assignor.Strategy> = ["range", "roundRobin", "sticky", "random"]

describe("an assignment", () => {
  it("gives a member without topics nothing, and nothing of a topic that nobody knows (AS1, AS2)", () => {
    for (const strategy of every) {
      deepStrictEqual(assign(strategy, {}, members({ c1: "" })), { c1: "" })
      deepStrictEqual(assign(strategy, {}, members({ c1: "t1" })), { c1: "" })
    }
  })

  it("gives one member all partitions, of the topics that it subscribes to (AS3, AS4)", () => {
    for (const strategy of every) {
      deepStrictEqual(assign(strategy, { t1: 3, other: 3 }, members({ c1: "t1" })), { c1: "t1:0,1,2" })
    }
  })

  it("gives two members one partition each, and one of them none where there is but one (AS5, AS6)", () => {
    for (const strategy of ["range", "roundRobin", "sticky"] as const) {
      deepStrictEqual(assign(strategy, { t1: 1 }, members({ c1: "t1", c2: "t1" })), { c1: "t1:0", c2: "" })
      deepStrictEqual(assign(strategy, { t1: 2 }, members({ c1: "t1", c2: "t1" })), { c1: "t1:0", c2: "t1:1" })
    }
  })

  it("by range gives neighbours of each topic, by round robin one to each in turn (AS7, AS8)", () => {
    const two = members({ c1: "t1 t2", c2: "t1 t2" })
    deepStrictEqual(assign("range", { t1: 3, t2: 3 }, two), { c1: "t1:0,1 t2:0,1", c2: "t1:2 t2:2" })
    deepStrictEqual(assign("roundRobin", { t1: 3, t2: 3 }, two), { c1: "t1:0,2 t2:1", c2: "t1:1 t2:0,2" })
  })

  it("leaves a topic to those who subscribe to it (AS9, AS10)", () => {
    const mixed = members({ c1: "t1", c2: "t1 t2", c3: "t1" })
    for (const strategy of ["range", "roundRobin"] as const) {
      deepStrictEqual(assign(strategy, { t1: 3, t2: 2 }, mixed), { c1: "t1:0", c2: "t1:1 t2:0,1", c3: "t1:2" })
    }
    deepStrictEqual(assign("sticky", { t1: 3, t2: 2 }, mixed), { c1: "t1:0,2", c2: "t2:0,1", c3: "t1:1" })
  })

  it("stays with static members, under whatever id they come back (AS11, AS12)", () => {
    const named = (ids: Readonly<Record<string, string | undefined>>): ReadonlyArray<Member> =>
      Object.entries(ids).map(([id, instance]) => ({ id, instance, topics: ["t1", "t2"] }))
    const byInstance = (
      ids: Readonly<Record<string, string | undefined>>,
      counts: Record<string, number> = { t1: 5 }
    ) => {
      const given = assign("range", counts, named(ids))
      return Object.fromEntries(Object.entries(ids).map(([id, instance]) => [instance ?? "dynamic", given[id]]))
    }
    deepStrictEqual(byInstance({ "consumer-b": "instance1", "consumer-a": "instance2" }), {
      instance1: "t1:0,1,2",
      instance2: "t1:3,4"
    })
    deepStrictEqual(byInstance({ "consumer-x": "instance1", "consumer-y": "instance2" }), {
      instance1: "t1:0,1,2",
      instance2: "t1:3,4"
    })
    const two = { t1: 5, t2: 4 }
    deepStrictEqual(
      byInstance({ zz: undefined, a: "i1", b: "i2", c: "i3" }, two),
      byInstance({ aa: undefined, d: "i1", e: "i2", f: "i3" }, two)
    )
  })

  it("that sticks moves no more than it must when members come and go (AS13, AS14, AS15)", () => {
    const one = members({ c1: "t1" })
    const two = members({ c1: "t1", c2: "t1" })
    deepStrictEqual(assign("sticky", { t1: 3 }, after({ c1: "t1:0,1,2" }, two)), { c1: "t1:0,1", c2: "t1:2" })
    deepStrictEqual(
      assign("sticky", { t1: 3 }, after({ c1: "t1:0,1", c2: "t1:2" }, two).filter(({ id }) => id === "c2")),
      { c2: "t1:0,1,2" }
    )
    deepStrictEqual(assign("sticky", { t1: 3 }, one), { c1: "t1:0,1,2" })
    deepStrictEqual(
      assign(
        "sticky",
        { t1: 2, t2: 2 },
        after({ c1: "t1:0 t2:0", c2: "t1:1 t2:1" }, members({ c1: "t1 t2", c2: "t1 t2", c3: "t1 t2" }))
      ),
      { c1: "t1:0", c2: "t1:1 t2:1", c3: "t2:0" }
    )
    deepStrictEqual(assign("sticky", { t1: 5 }, after({ c1: "t1:0,1", c2: "t1:2,3" }, two)), {
      c1: "t1:0,1,4",
      c2: "t1:2,3"
    })
  })

  it("that sticks is even where round robin is not (AS16)", () => {
    const topics = { t1: 2, t2: 1, t3: 2, t4: 1, t5: 2 }
    const all = "t1 t2 t3 t4 t5"
    const some = members({ c1: all, c2: "t1 t3 t5", c3: "t1 t3 t5", c4: all })
    const sizes = (strategy: Assignor.Strategy) =>
      Object.values(assign(strategy, topics, some)).map((share) => partitions(share).length)
    deepStrictEqual(sizes("roundRobin"), [3, 3, 0, 2])
    deepStrictEqual(sizes("sticky"), [2, 2, 2, 2])
  })

  it("of many partitions is even and whole (AS17)", () => {
    const topics = Object.fromEntries(Array.from({ length: 99 }, (_, n) => [`t${n}`, 3]))
    const many = members(
      Object.fromEntries(Array.from({ length: 49 }, (_, n) => [`c${n}`, Object.keys(topics).join(" ")]))
    )
    for (const strategy of ["roundRobin", "sticky", "random"] as const) {
      const shares = Object.values(assign(strategy, topics, many)).map(partitions)
      const sizes = shares.map(({ length }) => length)
      strictEqual(Math.max(...sizes) - Math.min(...sizes) <= 1, true)
      strictEqual(new Set(shares.flat().map(({ partition, topic }) => `${topic} ${partition}`)).size, 297)
    }
  })

  it("of ten thousand partitions to a hundred members, one of whom has them all, is made (AS18)", () => {
    const many = Array.from({ length: 100 }, (_, n): Member => ({
      id: `c${n}`,
      topics: ["t"],
      epoch: 1,
      owned: n > 0 ? [] : Array.from({ length: 10_000 }, (_, partition) => ({ topic: "t", partition }))
    }))
    const given = Assignor.assign({ strategy: "sticky", members: many, partitions: new Map([["t", 10_000]]), seed: "" })
    deepStrictEqual(new Set([...given.values()].map(({ length }) => length)), new Set([100]))
  })

  it("takes what two members claim in one epoch for neither's, and the later claim for the one that counts (AS19 to AS21)", () => {
    const three = members({ c1: "t", c2: "t", c3: "t" })
    const [c1, c2, c3] = three
    const owned = (member: Member | undefined, share: string, epoch: number): Member => ({
      ...member!,
      owned: partitions(share),
      epoch
    })
    deepStrictEqual(
      assign("sticky", { t: 3 }, [owned(c1, "t:0,1", 4), owned(c2, "t:0,2", 4), owned(c3, "", 4)]),
      { c1: "t:1", c2: "t:2", c3: "t:0" }
    )
    deepStrictEqual(assign("sticky", { t: 2 }, [owned(c1, "t:0", 3), owned(c2, "t:0,1", 4)]), { c1: "t:1", c2: "t:0" })
    deepStrictEqual(
      assign("sticky", { t: 3 }, [owned(c1, "t:0,1,2", 1), owned(c2, "t:1,2", 2), owned(c3, "t:2", 3)]),
      { c1: "t:0", c2: "t:1", c3: "t:2" }
    )
  })

  it("by chance is the same for everybody, even, and as likely one way as another (AS22)", () => {
    const four = members({ c1: "t", c2: "t", c3: "t", c4: "t" })
    const counts = new Map<string, number>()
    const epochs = 10_000
    for (let epoch = 0; epoch < epochs; epoch++) {
      const given = assign("random", { t: 6 }, four, `group ${epoch}`)
      if (epoch < 20) deepStrictEqual(assign("random", { t: 6 }, four.toReversed(), `group ${epoch}`), given)
      const sizes = Object.values(given).map((share) => partitions(share).length)
      strictEqual(Math.max(...sizes) - Math.min(...sizes), 1)
      for (const [id, share] of Object.entries(given)) {
        for (const { partition } of partitions(share)) {
          counts.set(`${id} ${partition}`, (counts.get(`${id} ${partition}`) ?? 0) + 1)
        }
      }
    }
    const expected = epochs / 4
    const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
    strictEqual(counts.size, 24)
    // 15 degrees of freedom (four members, six partitions), p = 0.01.
    strictEqual(chiSquare < 30.58, true)
  })
})

// ------------------------------------------------------------------------------------------- any history of a group

/** All assignments of a few partitions: the least sum of squared loads, and for that the least number of moves. */
const best = (topics: Topics, some: ReadonlyArray<Member>) => {
  const all = Object.entries(topics).flatMap(([topic, count]) =>
    Array.from({ length: count }, (_, partition) => ({ topic, partition }))
  ).filter(({ topic }) => some.some(({ topics }) => topics.includes(topic)))
  const ownerOf = (one: Assignor.TopicPartition) =>
    some.findIndex(({ owned = [], topics }) =>
      topics.includes(one.topic) &&
      owned.some(({ partition, topic }) => topic === one.topic && partition === one.partition)
    )
  const loads = some.map(() => 0)
  let found: readonly [squares: number, moves: number] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]
  const go = (place: number, moves: number): void => {
    if (place === all.length) {
      const squares = loads.reduce((sum, load) => sum + load * load, 0)
      if (squares < found[0] || (squares === found[0] && moves < found[1])) found = [squares, moves]
      return
    }
    const one = all[place]!
    const owner = ownerOf(one)
    for (const [index, { topics }] of some.entries()) {
      if (!topics.includes(one.topic)) continue
      loads[index]!++
      go(place + 1, moves + (owner >= 0 && owner !== index ? 1 : 0))
      loads[index]!--
    }
  }
  go(0, 0)
  return found
}

const costOf = (some: ReadonlyArray<Member>, given: Assignor.Assignment) => {
  const squares = [...given.values()].reduce((sum, { length }) => sum + length * length, 0)
  let moves = 0
  for (const member of some) {
    for (const one of member.owned ?? []) {
      const has = [...given].find(([, share]) =>
        share.some(({ partition, topic }) => topic === one.topic && partition === one.partition)
      )
      if (has !== undefined && has[0] !== member.id && member.topics.includes(one.topic)) moves++
    }
  }
  return [squares, moves]
}

const Change = Schema.Union([
  Schema.TaggedStruct("Join", { topics: Schema.Array(Schema.Literals(["a", "b"])).check(Schema.isMaxLength(2)) }),
  Schema.TaggedStruct("Join", { topics: Schema.Tuple([Schema.Literal("a"), Schema.Literal("b")]) }),
  Schema.TaggedStruct("Leave", { who: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 5 })) }),
  Schema.TaggedStruct("Grow", { topic: Schema.Literals(["a", "b"]) })
])

describe("any history of members and topics", () => {
  it.prop(
    "leaves assignments that are valid and whole, and sticky ones as even as can be with the fewest moves (AS23)",
    [Arbitrary.schema(Schema.Array(Change).check(Schema.isMinLength(1), Schema.isMaxLength(8)))],
    ([changes]) => {
      const topics = { a: 1, b: 1 }
      let some: ReadonlyArray<Member> = []
      let epoch = 0
      for (const change of changes) {
        if (change._tag === "Join" && some.length < 5) {
          some = some.concat({ id: `m${epoch}`, topics: [...new Set(change.topics)] })
        } else if (change._tag === "Leave") some = some.filter((_, place) => place !== change.who)
        else if (change._tag === "Grow" && topics.a + topics.b < 6) topics[change.topic]++
        epoch++
        const sharing = { members: some, partitions: new Map(Object.entries(topics)), seed: `g ${epoch}` }
        const wanted = Object.entries(topics).reduce(
          (sum, [topic, count]) => some.some(({ topics }) => topics.includes(topic)) ? sum + count : sum,
          0
        )
        for (const strategy of every) {
          const given = Assignor.assign({ strategy, ...sharing })
          const all = [...given].flatMap(([id, share]) => share.map((one) => ({ id, ...one })))
          strictEqual(all.length, wanted)
          strictEqual(new Set(all.map(({ partition, topic }) => `${topic} ${partition}`)).size, wanted)
          for (const { id, topic } of all) {
            strictEqual(some.find((member) => member.id === id)!.topics.includes(topic), true)
          }
        }
        const sticky = Assignor.assign({ strategy: "sticky", ...sharing })
        deepStrictEqual(costOf(some, sticky), [...best(topics, some)].map((n) => Number.isFinite(n) ? n : 0))
        some = some.map((member) => ({ ...member, owned: sticky.get(member.id) ?? [], epoch }))
      }
    },
    { arbitrary: { runs: 10_000 }, timeout: 120_000 }
  )
})
