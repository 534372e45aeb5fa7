import { describe, it } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import * as Timestamp from "@strata/postgres/Timestamp"
import type { Claimed } from "@strata/queues/consuming/Claims"
import { Holdings } from "@strata/queues/consuming/Holdings"

interface Line {
  readonly priority?: number
  readonly tenant?: string
  readonly key?: string
  readonly count?: number
}

/** Messages with ids from 1 in the order given, as one claim would give them: the most urgent first. */
const claimed = (...lines: ReadonlyArray<Line>): ReadonlyArray<Claimed> => {
  let id = 0n
  return lines.flatMap(({ count = 1, key = null, priority = 5, tenant = "default" }) =>
    Array.from({ length: count }, (): Claimed => ({
      token: "lease",
      claimedAt: Timestamp.fromMillis(0),
      id: ++id,
      sentAt: Timestamp.fromMillis(0),
      firstAt: Timestamp.fromMillis(0),
      priority,
      attempts: 1,
      crashes: 0,
      tenant,
      type: "test",
      key,
      uniqueKey: null,
      correlationId: null,
      causationId: null,
      traceparent: null,
      headers: null,
      data: {},
      bytes: null,
      storedAt: null,
      failures: null,
      size: null
    }))
  ).sort((one, other) => other.priority - one.priority)
}

const holding = (messages: ReadonlyArray<Claimed>, { now = () => 0, sharesKeys = false } = {}) => {
  const holdings = new Holdings(now)
  holdings.add(messages, sharesKeys)
  return holdings
}

/** The next ones to begin, each as this says it. */
const next = (holdings: Holdings, count: number, said: (claimed: Claimed) => unknown = ({ id }) => Number(id)) =>
  holdings.next(count).map(({ claimed }) => said(claimed))

const tenantOf = ({ tenant }: Claimed) => tenant
const priorityOf = ({ priority }: Claimed) => priority

describe("what a worker begins next", () => {
  it("is the most urgent inside a class, and then the oldest", () => {
    const holdings = holding(claimed({ priority: 4, count: 2 }, { priority: 6 }, { priority: 5, count: 2 }))
    deepStrictEqual(next(holdings, 10), [3, 4, 5, 1, 2])
  })

  it("is also the most urgent inside a class when that came later", () => {
    const holdings = holding(claimed({ priority: 4, count: 3 }))
    deepStrictEqual(next(holdings, 1), [1])
    holdings.add(claimed({ priority: 6 }).map((message) => ({ ...message, id: 9n, token: "later" })), false)
    deepStrictEqual(next(holdings, 10), [9, 2, 3])
  })

  it("goes by the weights of the classes, 8 to 4 to 2 to 1, so that none waits for ever", () => {
    const holdings = holding(claimed(...[10, 8, 5, 1].map((priority) => ({ priority, count: 100 }))))
    const begun = next(holdings, 150, priorityOf)
    deepStrictEqual([10, 8, 5, 1].map((priority) => begun.filter((one) => one === priority).length), [80, 40, 20, 10])
    strictEqual(begun[0], 10)
  })

  it("goes over the tenants of a class in turn, however much each of them has", () => {
    const holdings = holding(
      claimed({ tenant: "large", count: 100 }, { tenant: "small", count: 3 }, { tenant: "tiny" })
    )
    deepStrictEqual(next(holdings, 9, tenantOf), [
      "large",
      "small",
      "tiny",
      "large",
      "small",
      "large",
      "small",
      "large",
      "large"
    ])
    deepStrictEqual(next(holdings, 3), [6, 7, 8])
  })

  it("is of a tenant that comes while another one is worked on in its turn, and not behind it", () => {
    const holdings = holding(claimed({ tenant: "large", count: 100 }))
    strictEqual(next(holdings, 50).length, 50)
    holdings.add(
      claimed({ tenant: "small", count: 2 }).map((message) => ({ ...message, token: "small" })),
      false
    )
    deepStrictEqual(next(holdings, 4, tenantOf).toSorted(), ["large", "large", "small", "small"])
  })

  it("is the one that was sent first of a key of which several may run", () => {
    const holdings = holding(claimed({ key: "a", priority: 0 }, { key: "b", priority: 5 }, { key: "a", priority: 9 }), {
      sharesKeys: true
    })
    deepStrictEqual(next(holdings, 3), [1, 2, 3])
  })

  it("is nothing of a lease that others have", () => {
    const holdings = holding(claimed({ count: 3 }))
    for (const lease of holdings.leases.values()) lease.isLost = true
    deepStrictEqual(next(holdings, 3), [])
    strictEqual(holdings.waiting, 0)
  })

  it("is never what was given back: the least urgent, and of that the last", () => {
    const holdings = holding(
      claimed({ priority: 9, count: 2 }, { priority: 0, count: 3, tenant: "a" }, { priority: 0, tenant: "b" })
    )
    const given = holdings.giveBack(3).map(({ claimed }) => Number(claimed.id))
    deepStrictEqual(given, [5, 4, 3])
    strictEqual(holdings.waiting, 3)
    deepStrictEqual(next(holdings, 10), [1, 6, 2])
    deepStrictEqual(holdings.giveBack(1), [])
  })

  it("is everything in the end, whatever comes and goes in between", () => {
    const holdings = holding([])
    const seen: Array<number> = []
    let sent = 0
    for (let round = 0; round < 200; round++) {
      const fresh = claimed(
        { tenant: `t${round % 7}`, priority: round % 11, count: round % 5 },
        { tenant: `t${round % 3}`, priority: (round * 7) % 11, count: 2 }
      ).map((message) => ({ ...message, id: message.id + BigInt(sent), token: String(round) }))
      sent += fresh.length
      holdings.add(fresh, false)
      seen.push(...holdings.next(round % 6).map(({ claimed }) => Number(claimed.id)))
      seen.push(...holdings.giveBack(round % 3).map(({ claimed }) => Number(claimed.id)))
    }
    seen.push(...holdings.giveBackAll().map(({ claimed }) => Number(claimed.id)))
    deepStrictEqual(seen.toSorted((one, other) => one - other), Array.from({ length: sent }, (_, index) => index + 1))
  })
})
