import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import * as Membership from "@strata/queues/topics/group/Membership"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { migrations, numbers, Tables } from "./fixture.ts"

const ids = {
  a: "00000000-0000-4000-8000-00000000000a",
  b: "00000000-0000-4000-8000-00000000000b",
  c: "00000000-0000-4000-8000-00000000000c"
}

let groups = 0

/** A group of one topic with so many partitions, and how its members beat. */
const made = Effect.fnUntraced(function*(
  partitions: number,
  policies: { readonly settle?: number; readonly revocation?: number } = {}
) {
  const postgres = yield* Postgres
  const { rows } = postgres
  const name = `group ${++groups}`
  const [[topic], [group]] = yield* Effect.all([
    numbers(`insert into topic (name, partitions) values ('${name}', ${partitions}) returning id`),
    numbers(`insert into consumer_group (name, queue) values ('${name}', 0) returning id`)
  ]).pipe(Effect.map(([[one], [other]]) => [one!, other!] as const))
  yield* rows(`select subscribe_group(${group}, array[${topic}], 'beginning', null, null)`, [])
  const member = (who: keyof typeof ids, options: { readonly instance?: string; readonly session?: number } = {}) =>
    Membership.make(postgres, {
      group: group!,
      groupName: name,
      member: ids[who],
      instance: options.instance,
      name: who,
      topics: [topic!],
      session: Duration.millis(options.session ?? 60_000),
      maxMembers: undefined,
      policies: {
        settle: Duration.millis(policies.settle ?? 0),
        revocation: Duration.millis(policies.revocation ?? 60_000)
      }
    })
  const owned = (...partitions: ReadonlyArray<number>) => partitions.map((partition) => ({ topic: topic!, partition }))
  return { member, owned, group: group! }
})

/** A standing in words: epoch, what it has, what it is to give up. */
const words = (standing: Membership.Standing) =>
  standing._tag === "Fenced"
    ? "fenced"
    : `epoch ${standing.epoch}: ${standing.assigned.map(({ partition }) => partition).join(",")}` +
      (standing.revoked.length === 0 ? "" : ` without ${standing.revoked.map(({ partition }) => partition).join(",")}`)

const join = { epoch: 0n, owned: [] }

layer(Tables, { excludeTestServices: true })("a heartbeat", (it) => {
  it.effect("leaves a member in its epoch as long as it reports what is another's, who gets it only then (RB1, RB2)", () =>
    Effect.gen(function*() {
      const { member, owned } = yield* made(3)
      const [a, b] = [member("a"), member("b")]
      strictEqual(words(yield* a.beat(join)), "epoch 1: 0,1,2")
      strictEqual(words(yield* b.beat(join)), "epoch 2: ")
      strictEqual(words(yield* a.beat({ epoch: 1n, owned: owned(0, 1, 2) })), "epoch 1: 0,1 without 2")
      strictEqual(words(yield* b.beat({ epoch: 2n, owned: [] })), "epoch 2: ")
      strictEqual(words(yield* a.beat({ epoch: 1n, owned: owned(0, 1, 2) })), "epoch 1: 0,1 without 2")
      strictEqual(words(yield* a.beat({ epoch: 1n, owned: owned(0, 1) })), "epoch 2: 0,1")
      strictEqual(words(yield* b.beat({ epoch: 2n, owned: [] })), "epoch 2: 2")
    }))

  it.effect("fences an epoch that is none of the member's, but for the last one with nothing too much (RB3)", () =>
    Effect.gen(function*() {
      const { group, member, owned } = yield* made(3)
      const { rows } = yield* Postgres
      const a = member("a")
      yield* a.beat(join)
      yield* rows(`update consumer_group set epoch = 100 where id = ${group}`, [])
      yield* rows(`update group_member set epoch = 100, previous_epoch = 99 where consumer_group = ${group}`, [])
      strictEqual(words(yield* a.beat({ epoch: 200n, owned: owned(0, 1, 2) })), "fenced")
      strictEqual(words(yield* a.beat({ epoch: 50n, owned: owned(0, 1, 2) })), "fenced")
      strictEqual(words(yield* a.beat({ epoch: 99n, owned: owned(1, 2) })), "epoch 100: 0,1,2")
      // It has not heard what it was given.
      strictEqual(words(yield* a.beat({ epoch: 99n, owned: [] })), "epoch 100: 0,1,2")
      strictEqual(words(yield* a.beat({ epoch: 99n, owned: owned(1, 2, 7) })), "fenced")
    }))

  it.effect("takes a member for gone after its session, by the clock of the database (RB4)", () =>
    Effect.gen(function*() {
      const { group, member, owned } = yield* made(2)
      const { rows } = yield* Postgres
      const [a, b] = [member("a"), member("b")]
      yield* a.beat(join)
      yield* b.beat(join)
      yield* a.beat({ epoch: 1n, owned: owned(0, 1) })
      yield* a.beat({ epoch: 1n, owned: owned(0) })
      strictEqual(words(yield* b.beat({ epoch: 2n, owned: [] })), "epoch 2: 1")
      const ends = (when: string) =>
        rows(
          `update group_member set lease_until = clock_timestamp() ${when} where name = 'a' and consumer_group = ${group}`,
          []
        )
      yield* ends("+ interval '1 millisecond'")
      yield* Effect.sleep("5 millis")
      const found = yield* b.beat({ epoch: 2n, owned: owned(1) })
      strictEqual(words(found), "epoch 3: 0,1")
      deepStrictEqual(found._tag === "Member" && found.gone, ["a"])
      strictEqual(words(yield* a.beat({ epoch: 2n, owned: owned(0) })), "fenced")
      // A clock that was set back a day does not make a session last for one.
      yield* a.beat(join)
      yield* ends("+ interval '1 day'")
      yield* b.beat({ epoch: 3n, owned: owned(0, 1) })
      deepStrictEqual(
        yield* numbers(
          `select (lease_until <= clock_timestamp() + interval '60 seconds')::integer from group_member
          where consumer_group = ${group}`
        ),
        [[1], [1]]
      )
    }))

  it.effect("takes what a member does not give up in time, and fences it (RB5)", () =>
    Effect.gen(function*() {
      const { member, owned } = yield* made(2, { revocation: 1000 })
      const [a, b] = [member("a"), member("b")]
      yield* a.beat(join)
      yield* b.beat(join)
      strictEqual(words(yield* a.beat({ epoch: 1n, owned: owned(0, 1) })), "epoch 1: 0 without 1")
      yield* Effect.sleep("1100 millis")
      strictEqual(words(yield* b.beat({ epoch: 2n, owned: [] })), "epoch 3: 0,1")
      strictEqual(words(yield* a.beat({ epoch: 1n, owned: owned(0, 1) })), "fenced")
      strictEqual(words(yield* a.beat(join)), "epoch 4: ")
    }))

  it.effect("of a static member that comes back under another id changes no epoch, and ends who it was (RB6)", () =>
    Effect.gen(function*() {
      const { member, owned } = yield* made(2)
      const [a, b, c] = [member("a"), member("b", { instance: "one" }), member("c", { instance: "one" })]
      yield* a.beat(join)
      yield* b.beat(join)
      yield* a.beat({ epoch: 1n, owned: owned(0) })
      yield* a.beat({ epoch: 1n, owned: owned(0) })
      strictEqual(words(yield* b.beat({ epoch: 2n, owned: [] })), "epoch 2: 1")
      yield* b.leave
      strictEqual(words(yield* c.beat(join)), "epoch 2: 1")
      const error = yield* Effect.flip(b.beat({ epoch: 2n, owned: owned(1) }))
      strictEqual(error.message, `Another process takes part in the consumer group group ${groups} as one`)
    }))

  it.effect("stops nothing that does not move when one of ten members comes or goes (RB8)", () =>
    Effect.gen(function*() {
      const { group, member } = yield* made(20)
      const [a, b] = [member("a"), member("b")]
      const { rows } = yield* Postgres
      yield* a.beat(join)
      // Nine others, each with two partitions.
      for (let n = 0; n < 8; n++) {
        yield* rows(
          `insert into group_member (consumer_group, id, name, topics, session, lease_until, epoch)
          select ${group}, gen_random_uuid(), 'm${n}', m.topics, 60, clock_timestamp() + interval '1 minute', 1
          from group_member m where m.name = 'a' and m.consumer_group = ${group}`,
          []
        )
      }
      yield* rows(`update consumer_group set changed_at = clock_timestamp() where id = ${group}`, [])
      yield* a.beat({ epoch: 1n, owned: [] })
      yield* rows(`update group_partition set owner = target where consumer_group = ${group}`, [])
      const epochs = numbers(`select epoch from group_partition where consumer_group = ${group} order by partition`)
      const targets = Effect.map(
        rows(`select target::text from group_partition where consumer_group = ${group} order by partition`, []),
        (found) => found.map(([target]) => target)
      )
      const [before, had] = yield* Effect.all([epochs, targets])
      yield* b.beat(join)
      const [after, has] = yield* Effect.all([epochs, targets])
      deepStrictEqual(after, before)
      strictEqual(has.filter((target, place) => target !== had[place]).length, 2)
      yield* b.leave
      yield* a.beat({ epoch: 2n, owned: [] })
      strictEqual((yield* targets).filter((target, place) => target !== has[place]).length, 2)
    }))
})

layer(PostgresTest.layer({ migrations }), { excludeTestServices: true })("a group without a member", (it) => {
  it.effect("is dead after a time, however many look at it meanwhile, and not when a member was there", () =>
    Effect.gen(function*() {
      const { rows } = yield* Postgres
      const { group, member } = yield* made(1)
      const look = rows("select change from watch_groups(60)", [])
      const lived = (seconds: number) =>
        rows(
          `update consumer_group set missed_since = missed_since + ${seconds} * interval '1 second' where id = ${group}`,
          []
        )
      const looks = Effect.repeat(look, { times: 5 })
      deepStrictEqual(yield* looks, [])
      yield* lived(-59)
      deepStrictEqual(yield* looks, [])
      // A clock that was set back has seen it miss later than now.
      yield* lived(3600)
      deepStrictEqual(yield* looks, [])
      yield* lived(-59)
      // That a member was there meanwhile counts, also where nobody looked.
      yield* member("a").beat(join)
      yield* member("a").leave
      deepStrictEqual(yield* looks, [])
      yield* lived(-60)
      deepStrictEqual(yield* look, [["dead"]])
      deepStrictEqual(yield* look, [])
      yield* member("b").beat(join)
      deepStrictEqual(yield* looks, [])
    }))
})
