import { assert, describe, it } from "@effect/vitest"
import * as FairQueue from "@strata/resilience/scheduling/FairQueue"
import * as Priority from "@strata/resilience/scheduling/Priority"
import * as SeededScheduler from "@strata/testing/SeededScheduler"
import * as Schema from "effect/Schema"

const range = (count: number) => Array.from({ length: count }, (_, n) => n)

const equal = { P0: 1, P1: 1, P2: 1, P3: 1 }

type Class = Priority.Priority

interface Offer {
  readonly of: Class
  readonly tenant?: string
  readonly key?: string
  readonly cost?: number
  readonly enqueuedAt?: number
}

/** A queue of things that say what they are, with some of each. */
const filled = (count: number, offers: ReadonlyArray<Offer>, options: FairQueue.Options = {}) => {
  const queue = FairQueue.make<string>(options)
  for (const offer of offers) add(queue, count, offer)
  return queue
}

const add = (queue: FairQueue.FairQueue<string>, count: number, { of, tenant = "acme", ...rest }: Offer, now = 0) =>
  range(count).map((n) => queue.offer({ value: `${tenant} ${n}`, priority: of, tenant, ...rest }, now))

const all: ReadonlyArray<Offer> = Priority.all.map((of) => ({ of }))

/** Starts so many, and ends each at once. */
const serve = (queue: FairQueue.FairQueue<string>, count: number, now = 0) =>
  range(count).flatMap(() => {
    const entry = queue.next(now)
    if (entry === undefined) return []
    queue.complete(entry)
    return [entry]
  })

const classesOf = (entries: ReadonlyArray<FairQueue.Entry<string>>) =>
  entries.map(({ priority }) => priority.slice(1)).join("")

const tenantsOf = (entries: ReadonlyArray<FairQueue.Entry<string>>) => entries.map(({ tenant }) => tenant.name)

const count = <A>(things: ReadonlyArray<A>, thing: A) => things.filter((each) => each === thing).length

/** By how much two classes are apart in the worst of all windows, as a part of what they may be. */
const worstOf = (order: string, weights: FairQueue.ByClass) => {
  let worst = 0
  for (const [place, one] of Priority.all.entries()) {
    for (const other of Priority.all.slice(place + 1)) {
      let [sum, least, most] = [0, 0, 0]
      for (const served of order) {
        if (`P${served}` === one) sum += 1 / weights[one]
        if (`P${served}` === other) sum -= 1 / weights[other]
        least = Math.min(least, sum)
        most = Math.max(most, sum)
      }
      worst = Math.max(worst, (most - least) / (1 / weights[one] + 1 / weights[other]))
    }
  }
  return worst
}

describe("the classes of a fair queue", () => {
  it("that all have work get 8, 4, 2 and 1 of every 15 turns, always in the same order", () => {
    const order = classesOf(serve(filled(100, all), 60))
    assert.strictEqual(order, "012300100120010".repeat(4))
  })

  it("are never further apart than one turn of each, over any stretch of turns", () => {
    const worst = worstOf(classesOf(serve(filled(1500, all), 1500)), FairQueue.defaultWeights)
    assert.isAtMost(worst, 1)
    assert.isAbove(worst, 0.8)
  })

  it("never let P3 wait for more than 15 turns while all others have work", () => {
    const order = classesOf(serve(filled(1500, all), 1500))
    const turns = [...order].flatMap((served, turn) => served === "3" ? [turn] : [])
    assert.strictEqual(Math.max(...turns.slice(1).map((turn, n) => turn - (turns[n] ?? 0))), 15)
  })

  it("that had nothing to do start level with the others", () => {
    const queue = filled(1000, [{ of: "P3" }])
    serve(queue, 500)
    add(queue, 100, { of: "P0" })
    const order = classesOf(serve(queue, 100))
    assert.isTrue(order.startsWith(`${"0".repeat(9)}3${"0".repeat(8)}3${"0".repeat(8)}3`), order)
    assert.isFalse(order.includes("0".repeat(10)))
  })

  it("divide what the classes without work leave, and leave no turn out", () => {
    const order = classesOf(serve(filled(800, [{ of: "P0" }, { of: "P3" }]), 900))
    assert.deepStrictEqual([count([...order], "0"), count([...order], "3")], [800, 100])
  })

  it("of equal weights get turns by what they cost", () => {
    const order = classesOf(serve(filled(200, [{ of: "P0", cost: 10 }, { of: "P1" }], { weights: equal }), 110))
    assert.deepStrictEqual([count([...order], "0"), count([...order], "1")], [10, 100])
  })

  it("share as rounds of a quantum would, without rounding anybody to nothing", () => {
    const weights = { ...equal, P0: 200, P1: 100 }
    const order = classesOf(serve(filled(200, [{ of: "P0", cost: 150 }, { of: "P1", cost: 150 }], { weights }), 180))
    assert.deepStrictEqual([count([...order], "0"), count([...order], "1")], [120, 60])
  })

  it("that may start nothing for a while are owed a few turns for it, not all they missed", () => {
    const queue = filled(2000, all)
    serve(queue, 15)
    for (let turn = 0; turn < 500; turn++) queue.next(0, (of) => of === "P0")
    const order = classesOf(serve(queue, 200))
    const [first] = order.split("0")
    assert.deepStrictEqual(["1", "2", "3"].map((of) => count([...first ?? ""], of)), [11, 11, 11])
    assert.isAtMost(worstOf(order.slice(33), FairQueue.defaultWeights), 1)
  })

  it("that may start something stay fair among each other while others may not", () => {
    const queue = filled(2000, all)
    const order = range(700).map(() => queue.next(0, (of) => of !== "P3")?.priority)
    for (const [of, share] of [["P0", 8 / 14], ["P1", 4 / 14], ["P2", 2 / 14]] as const) {
      assert.closeTo(count(order, of), 700 * share, 3, of)
    }
  })

  it("keep their order when costs have added up to more than a number can hold exactly", () => {
    const queue = FairQueue.make<string>()
    const offer = (of: Class, cost: number) => queue.offer({ value: "", priority: of, tenant: "acme", cost }, 0)
    const waiting = new Map(Priority.all.map((of) => [of, offer(of, 2 ** 40)]))
    const turns = (count: number, cost: number) =>
      classesOf(
        range(count).flatMap(() =>
          serve(queue, 1).map((entry) => {
            waiting.set(entry.priority, offer(entry.priority, cost))
            return entry
          })
        )
      )
    turns(15 * 8200, 2 ** 40)
    // A virtual time that only grows would be past 2^53 by now, and a charge of one would be lost.
    for (const [of, entry] of waiting) {
      offer(of, 1)
      queue.cancel(entry)
    }
    assert.strictEqual(turns(60, 1), "012300100120010".repeat(4))
  }, 30_000)

  it("count what makes no sense as 1: no cost starves a class", () => {
    const queue = filled(100, [{ of: "P0", cost: NaN }, { of: "P1", cost: -5 }, { of: "P2", cost: 0 }, {
      of: "P3",
      cost: Infinity
    }])
    assert.strictEqual(classesOf(serve(queue, 15)), "012300100120010")
  })
})

describe("what work took", () => {
  it("is what its tenant pays, from its next turn on", () => {
    const queue = filled(50, [{ of: "P2", tenant: "slow" }, { of: "P2", tenant: "quick" }])
    const order = range(22).map(() => {
      const entry = queue.next(0)
      if (entry === undefined) return ""
      queue.complete(entry, entry.tenant.name === "slow" ? 10 : 1)
      return entry.tenant.name
    })
    assert.deepStrictEqual(order, ["slow", ...range(10).map(() => "quick"), "slow", ...range(10).map(() => "quick")])
  })

  it("is given back when it was less than expected", () => {
    const queue = filled(50, [{ of: "P2", tenant: "timid", cost: 10 }, { of: "P2", tenant: "quick" }])
    const order = range(40).map(() => {
      const entry = queue.next(0)
      if (entry === undefined) return ""
      queue.complete(entry, 1)
      return entry.tenant.name
    })
    assert.strictEqual(count(order, "timid"), 20)
  })

  it("is paid by what was stopped, too, however often it begins", () => {
    const queue = filled(1, [{ of: "P2", tenant: "stopped" }])
    add(queue, 50, { of: "P2", tenant: "quick" })
    const order = range(22).map(() => {
      const entry = queue.next(0)
      if (entry === undefined) return ""
      if (entry.tenant.name === "stopped") queue.requeue(entry, 0, 10)
      else queue.complete(entry)
      return entry.tenant.name
    })
    assert.deepStrictEqual(order.flatMap((tenant, turn) => tenant === "stopped" ? [turn] : []), [0, 11])
  })

  it("never takes a share back to before it came to wait again", () => {
    const queue = filled(1, [{ of: "P2", tenant: "late", cost: 1000 }])
    const long = queue.next(0) ?? assert.fail("nothing was served")
    add(queue, 2000, { of: "P2", tenant: "steady" })
    serve(queue, 1500)
    add(queue, 50, { of: "P2", tenant: "late" })
    queue.complete(long, 1)
    assert.closeTo(count(tenantsOf(serve(queue, 20)), "late"), 10, 1)
  })
})

describe("the tenants of a class", () => {
  it("do not wait for what another one sent", () => {
    const queue = filled(10_000, [{ of: "P2", tenant: "loud" }])
    serve(queue, 100)
    add(queue, 1, { of: "P2", tenant: "quiet" })
    assert.include(tenantsOf(serve(queue, 2)), "quiet")
  })

  it("all have their first turn before any of ten thousand has many", () => {
    const next = SeededScheduler.random(7)
    const sums: Array<number> = []
    for (let rank = 1; rank <= 10_000; rank++) sums.push((sums.at(-1) ?? 0) + 1 / rank)
    const draw = () => {
      const at = next() * (sums.at(-1) ?? 0)
      let [from, to] = [0, sums.length - 1]
      while (from < to) {
        const middle = (from + to) >> 1
        if ((sums[middle] ?? 0) < at) from = middle + 1
        else to = middle
      }
      return `tenant ${from}`
    }
    const queue = FairQueue.make<string>()
    for (let n = 0; n < 50_000; n++) add(queue, 1, { of: "P2", tenant: draw() })
    const first = new Map<string, number>()
    for (const [turn, tenant] of tenantsOf(serve(queue, 50_000)).entries()) {
      if (!first.has(tenant)) first.set(tenant, turn)
    }
    const mean = [...first.values()].reduce((sum, turn) => sum + turn, 0) / first.size
    assert.isAbove(first.size, 5000)
    assert.isBelow(mean / first.size, 1)
  })

  it("have weights of any size, and 1 where a weight makes no sense", () => {
    const weights: Record<string, number> = { tiny: 0.001, zero: 0, negative: -3, none: NaN, one: 1 }
    const offers = Object.keys(weights).map((tenant): Offer => ({ of: "P2", tenant }))
    const served = tenantsOf(serve(filled(3000, offers, { tenantWeight: (tenant) => weights[tenant] ?? 1 }), 8004))
    const counts = Object.keys(weights).map((tenant) => count(served, tenant))
    assert.isAtMost(counts[0] ?? 0, 3)
    assert.isAtLeast(counts[0] ?? 0, 2)
    for (const each of counts.slice(1)) assert.closeTo(each, 2000, 1)
  })

  it("have another weight from their next turn on, and what they paid stays paid", () => {
    const weights: Record<string, number> = { a: 1, b: 1 }
    const offers: ReadonlyArray<Offer> = [{ of: "P2", tenant: "a" }, { of: "P2", tenant: "b" }]
    const queue = filled(100, offers, { tenantWeight: (tenant) => weights[tenant] ?? 1 })
    assert.strictEqual(tenantsOf(serve(queue, 4)).join(""), "abab")
    weights["b"] = 3
    const served = tenantsOf(serve(queue, 40))
    assert.closeTo(count(served, "a"), 10, 1)
    weights["b"] = 1
    assert.closeTo(count(tenantsOf(serve(queue, 40)), "a"), 20, 1)
  })

  it("are forgotten when they have nothing and owe nothing", () => {
    const queue = FairQueue.make<string>()
    for (let n = 0; n < 1000; n++) {
      const [first] = add(queue, 2, { of: "P2", tenant: `tenant ${n}`, key: "one" })
      if (first !== undefined && n % 3 === 0) queue.cancel(first)
    }
    assert.strictEqual(queue.tenants(), 1000)
    serve(queue, 2000)
    assert.deepStrictEqual([queue.tenants(), queue.next(0)], [0, undefined])
  })
})

describe("work with a key", () => {
  const start = (queue: FairQueue.FairQueue<string>, now = 0) => queue.next(now) ?? assert.fail("nothing may start")

  it("is done one at a time, in the order it came, whatever its class", () => {
    const queue = FairQueue.make<string>()
    for (const [value, priority] of [["first", "P3"], ["second", "P0"], ["third", "P1"]] as const) {
      queue.offer({ value, priority, tenant: "acme", key: "account" }, 0)
    }
    assert.deepStrictEqual([queue.stateOf("P0").queued, queue.ready("P0"), queue.ready("P3")], [1, 0, 1])
    for (const value of ["first", "second", "third"]) {
      const entry = start(queue)
      assert.deepStrictEqual([entry.value, queue.next(0)], [value, undefined])
      queue.complete(entry)
    }
  })

  it("of another tenant is other work", () => {
    const queue = filled(2, [{ of: "P2", tenant: "a", key: "1" }, { of: "P2", tenant: "b", key: "1" }])
    assert.deepStrictEqual([start(queue), start(queue)].map(({ value }) => value).sort(), ["a 0", "b 0"])
    assert.isUndefined(queue.next(0))
  })

  it("waits for what is held, and for what was stopped and waits again", () => {
    const queue = filled(3, [{ of: "P2", key: "account" }])
    const first = start(queue)
    queue.hold(first)
    assert.deepStrictEqual([queue.next(0), queue.stateOf("P2").held], [undefined, 1])
    queue.resume(first, 5)
    const again = start(queue, 5)
    assert.deepStrictEqual([again.value, again.attempt], ["acme 0", 2])
    queue.requeue(again, 6)
    add(queue, 1, { of: "P2", tenant: "acme", key: "other" }, 7)
    const third = start(queue, 7)
    assert.deepStrictEqual([third.value, third.attempt], ["acme 0", 3])
    queue.complete(third)
    assert.deepStrictEqual(serve(queue, 3, 8).map(({ value, lane }) => `${lane?.key} ${value}`), [
      "account acme 1",
      "account acme 2",
      "other acme 0"
    ])
  })

  it("is let go by the one before it also when that is cancelled, wherever it is", () => {
    const queue = filled(0, [])
    const [first, second, third, fourth] = add(queue, 4, { of: "P2", key: "account" })
    if (!first || !second || !third || !fourth) return assert.fail()
    assert.isTrue(queue.cancel(second))
    assert.isTrue(queue.cancel(first))
    assert.isFalse(queue.cancel(first))
    queue.hold(start(queue))
    assert.isTrue(queue.cancel(third))
    assert.strictEqual(start(queue), fourth)
    assert.isFalse(queue.cancel(fourth))
    queue.complete(fourth)
    const { aged, held, queued, ready, running } = queue.stateOf("P2")
    assert.deepStrictEqual([aged, held, queued, ready, running, queue.tenants()], [0, 0, 0, 0, 0, 0])
  })
})

describe("work that has aged", () => {
  const minute = 60_000

  /** P0 always has work; P3 has had so much that its turn would not come for a long time. */
  const busy = () => {
    const queue = filled(20_000, [{ of: "P0" }])
    add(queue, 200, { of: "P3", cost: 1000 })
    serve(queue, 20)
    return queue
  }

  it("is served within ten turns, whatever its class had before", () => {
    const queue = busy()
    assert.notInclude(classesOf(serve(queue, 100, minute - 1)), "3")
    for (let round = 0; round < 20; round++) assert.include(classesOf(serve(queue, 10, minute)), "3")
  })

  it("takes no more than one turn in ten, so that P0 keeps nine tenths of its share", () => {
    const order = classesOf(serve(busy(), 1000, minute + 1))
    assert.isAtMost(count([...order], "3"), 100)
    assert.isAtLeast(count([...order], "0") / 1000, 0.9 * 8 / 9)
    assert.notMatch(order, /3.{0,8}3/)
  })

  it("keeps its rank, and is served oldest first", () => {
    const queue = filled(1000, [{ of: "P0" }])
    for (const [tenant, enqueuedAt] of [["b", 20], ["c", 30], ["a", 10]] as const) {
      add(queue, 1, { of: "P3", cost: 1000, tenant, enqueuedAt }, 50)
    }
    const served = tenantsOf(serve(queue, 40, minute + 50).filter(({ priority }) => priority === "P3"))
    assert.deepStrictEqual(served, ["a", "b", "c"])
  })

  it("is as new as any other when it is stopped and waits again", () => {
    const queue = filled(1000, [{ of: "P0" }])
    add(queue, 1, { of: "P3", cost: 1000 })
    let entry = queue.next(minute)
    while (entry !== undefined && entry.priority !== "P3") entry = queue.next(minute)
    if (entry === undefined) return assert.fail("it was not served")
    queue.requeue(entry, minute)
    assert.notInclude(classesOf(serve(queue, 100, minute)), "3")
    assert.notInclude(classesOf(serve(queue, 100, 2 * minute - 1)), "3")
    assert.include(classesOf(serve(queue, 10, 2 * minute)), "3")
  })

  it("all at once does not make P0 wait twice as long", () => {
    /** One piece at a time, of a millisecond each, and P0 that comes whenever it likes. */
    const waits = (aged: number) => {
      const next = SeededScheduler.random(3)
      const queue = FairQueue.make<string>()
      add(queue, aged, { of: "P3", enqueuedAt: -2 * minute })
      const waited: Array<number> = []
      let arrival = 0
      for (let now = 0; waited.length < 4000;) {
        for (; arrival <= now; arrival -= Math.log(1 - next()) / 0.6) add(queue, 1, { of: "P0" }, arrival)
        const entry = queue.next(now)
        if (entry?.priority === "P0") waited.push(now - entry.enqueuedAt)
        now = entry === undefined ? arrival : now + 1
        if (entry !== undefined) queue.complete(entry, 1)
      }
      return waited.sort((a, b) => a - b)[Math.floor(0.99 * waited.length)] ?? 0
    }
    assert.isAbove(waits(0), 1)
    assert.isAtMost(waits(1000), 2 * waits(0))
  })
})

describe("a queue that takes over from another", () => {
  const text = Schema.fromJsonString(FairQueue.Snapshot)
  const written = (queue: FairQueue.FairQueue<string>) =>
    Schema.decodeSync(text)(Schema.encodeSync(text)(queue.snapshot()))

  it("stays within one turn of each, however often that happens and whatever was begun and not ended", () => {
    const next = SeededScheduler.random(11)
    let queue = filled(50, all)
    let order = ""
    for (let life = 0; life < 200; life++) {
      const turns = 1 + Math.floor(next() * 20)
      for (let turn = 0; turn < turns; turn++) {
        const entry = queue.next(0)
        if (entry === undefined) return assert.fail("nothing was served")
        order += entry.priority.slice(1)
        if (next() < 0.5) queue.complete(entry)
      }
      const snapshot = written(queue)
      queue = filled(50, all, { snapshot })
    }
    const worst = worstOf(order, FairQueue.defaultWeights)
    assert.isAtMost(worst, 1 + 1e-9)
  })

  it("knows what each tenant has had", () => {
    const offers: ReadonlyArray<Offer> = [{ of: "P2", tenant: "a", cost: 5 }, { of: "P2", tenant: "b" }]
    const first = filled(10, offers)
    serve(first, 1)
    assert.strictEqual(tenantsOf(serve(filled(10, offers, { snapshot: written(first) }), 5)).join(""), "bbbbb")
  })

  it("does not bring more forward by age than one would", () => {
    const offers: ReadonlyArray<Offer> = [{ of: "P0" }, { of: "P3", cost: 1000, enqueuedAt: -100_000 }]
    let queue = filled(100, offers)
    let order = ""
    for (let life = 0; life < 30; life++) {
      order += classesOf(serve(queue, 3))
      queue = filled(100, offers, { snapshot: written(queue) })
    }
    assert.isAtMost(count([...order], "3"), 10)
  })
})

describe("a capacity that is divided", () => {
  it("gives nobody more than asked for, and what is left to those who want more", () => {
    assert.deepStrictEqual(FairQueue.divide([3, 7, 9, 1], 14), [3, 5, 5, 1])
    assert.deepStrictEqual(FairQueue.divide([1, 47], 42), [1, 41])
    assert.deepStrictEqual(FairQueue.divide([1, 9, 7, 3], 21), [1, 9, 7, 3])
    assert.deepStrictEqual(FairQueue.divide([], 5), [])
  })

  it("goes by weights where there are any", () => {
    assert.deepStrictEqual(FairQueue.divide([100, 100, 100, 100], 15, [8, 4, 2, 1]), [8, 4, 2, 1])
    assert.deepStrictEqual(FairQueue.divide([100, 0, 0, 100], 9, [8, 4, 2, 1]), [8, 0, 0, 1])
    assert.deepStrictEqual(FairQueue.divide([2, 100], 12, [8, 1]), [2, 10])
  })
})
