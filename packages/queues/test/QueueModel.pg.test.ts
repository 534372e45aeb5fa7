import { assert, layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as HeaderFilter from "@strata/queues/consuming/HeaderFilter"
import * as DeadLetters from "@strata/queues/DeadLetters"
import { MessageId, type NewMessage } from "@strata/queues/Message"
import type { QueueError } from "@strata/queues/QueueError"
import { defaults, QueuePolicies } from "@strata/queues/QueuePolicies"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import * as QueueSettings from "@strata/queues/QueueSettings"
import * as SeededScheduler from "@strata/testing/SeededScheduler"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { SqlError } from "effect/sql/SqlError"
import { isDeepStrictEqual } from "node:util"
import * as Model from "./correctness/QueueModel.ts"
import { Database, declared, type Payload } from "./fixture.ts"

/** Each is a sequence; one alone does again what it did. */
const seeds = Array.from({ length: 200 }, (_, seed) => seed)

/** What is done in each. */
const steps = 20

// --------------------------------------------------------------------------------------------------------- asking

const Options = (settings: Model.Settings): QueueSettings.Options => {
  const { burst, burstPerKey, maxAttempts, maxDepth, maxRunning, maxRunningPerKey, overflow } = settings
  const rate = (burst: number) => ({ count: 1, per: "1 hour", burst } as const)
  return {
    retry: { attempts: 9, kind: "fixed", base: "1 hour", total: "10000 hours", jitter: "none" },
    maxAttempts,
    maxRunningPerKey,
    overflow,
    ...(maxRunning === undefined ? {} : { maxRunning }),
    ...(maxDepth === undefined ? {} : { maxDepth }),
    ...(burst === undefined ? {} : { rate: rate(burst) }),
    ...(burstPerKey === undefined ? {} : { ratePerKey: rate(burstPerKey) })
  }
}

const toMessage = ({ delay, key, n, priority, region, unique }: Model.NewMessage): NewMessage<typeof Payload.Type> => ({
  payload: { n },
  priority,
  key,
  delay: Duration.hours(delay),
  headers: { region },
  unique: unique === undefined ? undefined : {
    key: unique.key,
    during: unique.during,
    window: unique.window === undefined ? undefined : Duration.hours(unique.window),
    onConflict: unique.replaces ? "replace" : "skip"
  }
})

const show = (value: unknown): string => JSON.stringify(value)

/** Chances of one seed. */
class Chance {
  readonly next: () => number
  constructor(seed: number) {
    this.next = SeededScheduler.random(seed)
  }
  /** True in so much of all cases. */
  in(part: number): boolean {
    return this.next() < part
  }
  /** From `from` to `to`, both included. */
  between(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1))
  }
  of<A>(values: ReadonlyArray<A>): A {
    return values[Math.floor(this.next() * values.length)]!
  }
  maybe<A>(part: number, value: () => A): A | undefined {
    return this.in(part) ? value() : undefined
  }
}

const settingsOf = (chance: Chance): Model.Settings => ({
  maxAttempts: chance.between(1, 3),
  maxRunning: chance.maybe(0.2, () => chance.between(1, 4)),
  maxRunningPerKey: chance.between(1, 2),
  burst: chance.maybe(0.2, () => chance.between(1, 4)),
  burstPerKey: chance.maybe(0.2, () => chance.between(1, 2)),
  maxDepth: chance.maybe(0.3, () => chance.between(3, 8)),
  overflow: chance.of(["refuse", "dropLowest", "spill"])
})

const states = ["waiting", "later", "running", "dead", "done"] as const

const messageOf = (chance: Chance, n: number): Model.NewMessage => ({
  n,
  priority: chance.between(0, 10),
  key: chance.maybe(0.5, () => chance.of(["a", "b"])),
  delay: chance.in(0.2) ? chance.between(1, 3) : 0,
  region: chance.of(["eu", "us"]),
  unique: chance.maybe(0.3, () => {
    const during = chance.in(0.5) ? ["waiting", "later", "running"] as const : states
    // What is taken when it is done is so for a time.
    const window = during === states || chance.in(0.5) ? chance.between(1, 4) : undefined
    return { key: chance.of(["x", "y"]), during, window, replaces: chance.in(0.5) }
  })
})

// ------------------------------------------------------------------------------------------------------ sequences

/** Does this and that with a queue and with its model, as the seed says: each answer, and the counts, have to be the same. */
const sequence = Effect.fnUntraced(function*(seed: number, foreign: MessageId) {
  const chance = new Chance(seed)
  const queues = yield* Queues.Queues
  const pull = yield* QueuePull.QueuePull
  const letters = yield* DeadLetters.DeadLetters
  const { sql, transact } = yield* Postgres
  const model = new Model.QueueModel(settingsOf(chance))
  const queue = yield* declared(`sequence ${seed}`, Options(model.settings))
  const { id: number } = yield* queues.find(queue)
  const ids: Array<number> = []
  const deliveries: Array<QueuePull.Delivery<typeof Payload.Type>> = []
  const done: Array<string> = []
  let n = 0

  /** What is done, in words; what it gives has to be what the model gives. */
  const same = (what: string, is: unknown, expected: unknown) =>
    Effect.sync(() => {
      done.push(what)
      if (!isDeepStrictEqual(is, expected)) {
        deepStrictEqual(
          is,
          expected,
          `seed ${seed}: ${what} ${show(is)} instead of ${show(expected)}\n${done.join("\n")}`
        )
      }
    })

  const send = Effect.gen(function*() {
    const messages = Array.from({ length: chance.between(1, 3) }, () => messageOf(chance, n++))
    const what = `send ${show(messages)}`
    const sending = queues.send(queue, messages.map(toMessage))
    if (chance.in(0.1)) {
      yield* Effect.ignore(transact(Effect.andThen(sending, Effect.fail("changed its mind"))))
      return yield* same(`${what}, rolled back`, true, true)
    }
    const sent = yield* (chance.in(0.2) ? transact(sending) : sending).pipe(
      Effect.map((sent): Model.Sent => sent.map(({ id, outcome }) => ({ outcome, id: Number(id) }))),
      Effect.catchReason("QueueError", "QueueFull", () => Effect.succeed<Model.Sent>("full"))
    )
    if (sent !== "full") ids.push(...sent.map(({ id }) => id))
    yield* same(`${what}: ${show(sent)}`, model.send(messages, sent), true)
  })

  const claim = Effect.fnUntraced(function*(limit: number, region: "eu" | "us" | undefined) {
    const lease = chance.between(1, 4)
    const found = yield* pull.claim(queue, {
      limit,
      lease: Duration.hours(lease),
      filter: region === undefined ? undefined : HeaderFilter.equal("region", region)
    })
    const of = found.map(({ claimed, token }) => ({ id: Number(claimed.id), attempt: claimed.attempts, token }))
    const { alone, together } = model.claim(limit, region)
    const claimed = of.map(({ attempt, id }) => ({ id, attempt }))
    const suspects = claimed.slice(together.length).sort((one, other) => one.id - other.id)
    yield* same(
      `claim ${limit} for ${lease} h ${region}: ${show(of)}`,
      { together: claimed.slice(0, together.length), alone: suspects },
      { together, alone }
    )
    const byToken = Map.groupBy(of, ({ token }) => token)
    strictEqual(byToken.size, alone.length + (together.length > 0 ? 1 : 0))
    for (const [token, of] of byToken) model.lease(token, of.map(({ id }) => id), lease)
    deliveries.push(...found)
    return found
  })

  const settle = Effect.fnUntraced(function*(delivery: QueuePull.Delivery<unknown>, said: Model.Said) {
    const accepted = yield* answered(saying(pull, delivery, said))
    const id = Number(delivery.message.id)
    yield* same(`${show(said)} of ${id}`, accepted, model.settle(delivery.token, id, said))
  })

  const settleOne = Effect.suspend(() => {
    // Mostly of those that were claimed last, but whatever was claimed ever may be settled again.
    const delivery = chance.of(chance.in(0.8) ? deliveries.slice(-4) : deliveries)
    return delivery === undefined ? Effect.void : settle(delivery, saidOf(chance))
  })

  const extend = Effect.suspend(() => {
    const delivery = chance.of(deliveries.slice(-6))
    if (delivery === undefined) return Effect.void
    const hours = chance.between(1, 4)
    return Effect.flatMap(
      answered(pull.extend(delivery, Duration.hours(hours))),
      (kept) => same(`extend ${delivery.token} by ${hours}`, kept, model.extend(delivery.token, hours))
    )
  })

  const pass = Effect.fnUntraced(function*(hours: number) {
    yield* sql`select pass_hours(${number}, ${hours})`
    model.pass(hours)
    done.push(`${hours} hours pass`)
  })

  const withdraw = Effect.suspend(() => {
    const id = chance.in(0.1) ? Number(foreign) : chance.of(ids)
    if (id === undefined) return Effect.void
    return Effect.flatMap(
      queues.withdraw(queue, MessageId.make(BigInt(id))),
      (isGone) => same(`withdraw ${id}`, isGone, model.withdraw(id))
    )
  })

  const purge = Effect.flatMap(queues.purge(queue), (count) => same("purge", count, model.purge()))

  const pause = Effect.suspend(() => {
    model.isPaused = !model.isPaused
    done.push(model.isPaused ? "pause" : "resume")
    return model.isPaused ? queues.pause(queue) : queues.resume(queue)
  })

  const reprocess = Effect.suspend(() => {
    const some = model.dead.filter(() => chance.in(0.7))
    return Effect.flatMap(
      letters.reprocess(queue, { ids: some.map((id) => MessageId.make(BigInt(id))) }),
      (again) => same(`reprocess ${some.join(", ")}`, again.map(Number), model.reprocess(some))
    )
  })

  const discard = Effect.suspend(() => {
    const some = model.dead.filter(() => chance.in(0.5))
    return Effect.flatMap(
      letters.discard(queue, { ids: some.map((id) => MessageId.make(BigInt(id))) }),
      (count) => same(`discard ${some.join(", ")}`, count, model.discard(some))
    )
  })

  const configure = (settings: Model.Settings) =>
    Effect.suspend(() => {
      model.settings = settings
      done.push(`configure ${show(settings)}`)
      return queues.configure(queue, QueueSettings.make(Options(settings)))
    })

  const step = Effect.suspend((): Effect.Effect<unknown, QueueError | SqlError | TransactionError> => {
    const dice = chance.next()
    if (dice < 0.3) return send
    if (dice < 0.5) return claim(chance.between(1, 6), chance.maybe(0.2, () => chance.of(["eu", "us"])))
    if (dice < 0.74) return settleOne
    if (dice < 0.77) return extend
    if (dice < 0.85) return pass(chance.between(1, 3))
    if (dice < 0.89) return withdraw
    if (dice < 0.9) return purge
    if (dice < 0.92) return pause
    if (dice < 0.95) return reprocess
    return dice < 0.96 ? discard : configure(settingsOf(chance))
  })

  const count = Effect.gen(function*() {
    yield* same("counts", yield* queues.stats(queue), model.stats)
  })

  const compare = Effect.gen(function*() {
    yield* same("order", (yield* queues.browse(queue)).map(({ id }) => Number(id)), model.order)
  })

  for (let at = 0; at < steps; at++) {
    yield* Effect.andThen(step, count)
    if (at % 4 === 0) yield* compare
  }

  // In the end all there is can be done, and then nothing is left.
  if (model.isPaused) yield* pause
  yield* configure({ maxAttempts: 100, maxRunningPerKey: 1, overflow: "refuse" })
  yield* pass(1000)
  while (isOpen(model.stats)) {
    const found = yield* claim(50, undefined)
    assert.isNotEmpty(found, `seed ${seed}: nothing can be claimed of ${show(model.stats)}\n${done.join("\n")}`)
    for (const delivery of found) yield* settle(delivery, { _tag: "Ack" })
  }
  yield* count
  yield* pass(1000)
  // Somebody else may just forget its keys.
  yield* Effect.repeat(
    sql<{ readonly rows: number }>`
      select
        (select count(*)::int from message where queue = ${number})
        + (select count(*)::int from message_later where (message).queue = ${number})
        + (select count(*)::int from message_parked where (message).queue = ${number})
        + (select count(*)::int from message_lease where queue = ${number})
        + (select count(*)::int from message_key where queue = ${number})
        + (select count(*)::int from message_unique where queue = ${number}) as rows
      from forget_keys(1000)`,
    { until: ([left]) => left?.rows === 0 }
  ).pipe(Effect.timeout("1 minute"))
})

const isOpen = ({ later, leased, parked, ready }: Model.QueueModel["stats"]): boolean =>
  ready + later + parked + leased > 0

const saidOf = (chance: Chance): Model.Said => {
  const after = chance.between(1, 3)
  return chance.of<Model.Said>([
    { _tag: "Ack" },
    { _tag: "Ack" },
    { _tag: "Release" },
    { _tag: "Snooze", after },
    { _tag: "Nack", after, givesUp: false },
    { _tag: "Nack", after, givesUp: chance.in(0.3) }
  ])
}

const saying = (
  pull: QueuePull.QueuePull["Service"],
  delivery: QueuePull.Delivery<unknown>,
  said: Model.Said
): Effect.Effect<void, QueueError> => {
  switch (said._tag) {
    case "Ack":
      return pull.ack(delivery)
    case "Release":
      return pull.release(delivery)
    case "Snooze":
      return pull.snooze(delivery, Duration.hours(said.after))
    case "Nack":
      return pull.nack(delivery, { reason: "no", after: Duration.hours(said.after), giveUp: said.givesUp })
  }
}

/** Whether the lease was still there. */
const answered = (saying: Effect.Effect<void, QueueError>): Effect.Effect<boolean, QueueError> =>
  Effect.catchReason(Effect.as(saying, true), "QueueError", "LeaseLost", () => Effect.succeed(false))

/** Everything of a queue that has a time is that much earlier, and what nobody has settled in time comes back. */
const passHours = `
  create function pass_hours(_queue integer, _hours integer) returns void language sql begin atomic
    update message_later set due = due - _hours * interval '1 hour' where (message).queue = _queue;
    update message_lease set until = until - _hours * interval '1 hour' where queue = _queue;
    update message_unique set until = until - _hours * interval '1 hour' where queue = _queue;
    update message_key set allowed_at = allowed_at - _hours * interval '1 hour' where queue = _queue;
    update queue set allowed_at = allowed_at - _hours * interval '1 hour' where id = _queue;
    select expire_leases(1000);
  end`

/** Tables take turns all the time. */
const Turning = Layer.succeed(QueuePolicies, { ...defaults, tableSize: 8192, upkeep: Duration.millis(500) })

layer(Database.pipe(Layer.provide(Turning)), { excludeTestServices: true })("a queue and its model", (it) => {
  it.effect("answer the same, and count the same, whatever is done with them", () =>
    Effect.gen(function*() {
      yield* (yield* Postgres).rows(passHours, [])
      const other = yield* declared("another queue")
      const [foreign] = yield* (yield* Queues.Queues).send(other, [{ payload: { n: 0 }, delay: "1000 hours" }])
      yield* Effect.forEach(seeds, (seed) => sequence(seed, foreign!.id), {
        concurrency: 3,
        discard: true
      })
      strictEqual((yield* (yield* Queues.Queues).stats(other)).later, 1)
    }), 120_000)
})
