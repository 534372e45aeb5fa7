import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Inbox from "@strata/queues/Inbox"
import type { NewMessage } from "@strata/queues/Message"
import type { Queue } from "@strata/queues/Queue"
import type { QueueError } from "@strata/queues/QueueError"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import { migrations } from "@strata/queues/QueuesMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { SqlError } from "effect/sql/SqlError"
import { happen, makeTables, remains } from "./correctness/Effects.ts"
import * as Failpoint from "./correctness/Failpoint.ts"
import { type Event, now, type Record } from "./correctness/History.ts"
import * as Invariants from "./correctness/invariants.ts"
import * as Watched from "./correctness/Watched.ts"
import { declared, type Payload } from "./fixture.ts"

type Task = typeof Payload.Type
type Service = Postgres["Service"]

/** What happens to a queue, written down. */
type Story = (queue: Queue<Task>, record: Record) => Effect.Effect<
  void,
  QueueError | SqlError | TransactionError | string,
  Postgres | Queues.Queues | QueuePull.QueuePull
>

// --------------------------------------------------------------------------------------------------------- actors

/** Sends, and says so when it knows. */
const send = Effect.fnUntraced(
  function*(queue: Queue<Task>, record: Record, messages: ReadonlyArray<NewMessage<Task>>) {
    for (const { key = null, payload: { n } } of messages) record({ _tag: "Asked", at: now(), n, key })
    const sent = yield* (yield* Queues.Queues).send(queue, messages)
    for (const [index, { payload: { n } }] of messages.entries()) {
      record({ _tag: "Told", at: now(), n, id: Number(sent[index]!.id) })
    }
  }
)

/** Has the effect of a message happen once. The first try is broken off in the middle of it. */
const handle = Effect.fnUntraced(function*({ message }: QueuePull.Delivery<Task>, record: Record, breaksOff = false) {
  const { attempt, payload: { n } } = message
  const id = Number(message.id)
  record({ _tag: "Begun", at: now(), worker: "one", id, n, attempt })
  const did = yield* happen(message.id, n, breaksOff && attempt === 1 ? Effect.fail("broken off") : Effect.void).pipe(
    Inbox.once("one", message)
  )
  record({ _tag: Option.isSome(did) ? "Did" : "Fenced", at: now(), worker: "one", id })
})

/** Handles all there is, as much as there is at a time. */
const drain = Effect.fnUntraced(function*(queue: Queue<Task>, record: Record, breaksOff = false) {
  const pull = yield* QueuePull.QueuePull
  for (;;) {
    const deliveries = yield* pull.claim(queue, { limit: 20 })
    if (deliveries.length === 0) return
    for (const delivery of deliveries) {
      yield* Effect.matchEffect(handle(delivery, record, breaksOff), {
        onSuccess: () => pull.ack(delivery),
        onFailure: () => pull.nack(delivery, { reason: "broken off", after: 0 })
      })
    }
  }
})

/** All leases run out. */
const expire = Effect.gen(function*() {
  const { sql } = yield* Postgres
  yield* sql`update message_lease set until = clock_timestamp() - interval '1 second'`
  yield* sql`select expire_leases(1000)`
})

// -------------------------------------------------------------------------------------------------------- stories

/** Somebody acknowledges when another one has the message. */
const lateAck: Story = Effect.fnUntraced(function*(queue, record) {
  const pull = yield* QueuePull.QueuePull
  yield* send(queue, record, [{ payload: { n: 1 } }])
  const [first] = yield* pull.claim(queue)
  yield* expire
  const [second] = yield* pull.claim(queue)
  yield* Effect.ignore(pull.ack(first!))
  yield* handle(second!, record)
  yield* Effect.ignore(pull.ack(second!))
})

/** Somebody claims, and is never heard of again. */
const silence: Story = Effect.fnUntraced(function*(queue, record) {
  yield* send(queue, record, [{ payload: { n: 1 } }, { payload: { n: 2 } }])
  yield* (yield* QueuePull.QueuePull).claim(queue, { limit: 2 })
  yield* expire
  yield* drain(queue, record)
})

/** Messages of one key, the last ones the most urgent. */
const urgency: Story = Effect.fnUntraced(function*(queue, record) {
  yield* send(
    queue,
    record,
    Array.from({ length: 8 }, (_, n) => ({ payload: { n }, priority: n, key: "one" }))
  )
  yield* drain(queue, record)
})

/** Each effect is broken off in its middle when it happens for the first time. */
const brokenOff: Story = Effect.fnUntraced(function*(queue, record) {
  yield* send(queue, record, [{ payload: { n: 1 } }, { payload: { n: 2 } }])
  yield* drain(queue, record, true)
})

/** Some are sent in a transaction that is rolled back. The sender knows, and says so. */
const rolledBack: Story = Effect.fnUntraced(function*(queue, record) {
  const queues = yield* Queues.Queues
  const { transact } = yield* Postgres
  record({ _tag: "Asked", at: now(), n: 1, key: null })
  yield* Effect.ignore(transact(Effect.andThen(queues.send(queue, [{ payload: { n: 1 } }]), Effect.fail("no"))))
  record({ _tag: "Refused", at: now(), n: 1 })
  yield* drain(queue, record)
})

/** As before, but the sender has said by then that it is there. */
const toldTooEarly: Story = Effect.fnUntraced(function*(queue, record) {
  const { transact } = yield* Postgres
  yield* Effect.ignore(transact(Effect.andThen(send(queue, record, [{ payload: { n: 1 } }]), Effect.fail("no"))))
  yield* drain(queue, record)
})

// -------------------------------------------------------------------------------------------------------- mutants

interface Mutant {
  readonly story: Story
  /** What sees it. */
  readonly invariant: keyof typeof Invariants.invariants
  /** Functions of the database that are other ones. */
  readonly sql?: ReadonlyArray<string>
  /** A database that does other things than it is told. */
  readonly database?: (postgres: Service) => Service
  /** What happens instead. */
  readonly instead?: Story
}

const settlesByMessage = [
  `create or replace function settle_messages(
    _token uuid, _done bigint[], _released bigint[], _retried bigint[], _after double precision[], _failures jsonb[],
    _dead bigint[], _reasons text[], _fingerprints text[], _errors jsonb[]
  ) returns boolean language plpgsql as $$
  begin
    delete from message_lease l where exists (select from unnest(l.messages) m where m.id = any(_done));
    return true;
  end
  $$`,
  `create or replace function lease_has(_token uuid, _id bigint) returns boolean language sql stable as 'select true'`
]

const mutants: { readonly [name: string]: Mutant } = {
  "an acknowledgement that does not look at the token": {
    story: lateAck,
    invariant: "theLastOneWhoHasItDecides",
    sql: settlesByMessage
  },
  "a lease that runs out and takes its messages with it": {
    story: silence,
    invariant: "nothingAcknowledgedIsLost",
    sql: [
      `create or replace function expire_leases(_limit integer) returns integer language plpgsql as $$
      begin
        delete from message_lease where until < clock_timestamp();
        return 0;
      end
      $$`
    ]
  },
  "a lease that runs out and is not returned": {
    story: silence,
    invariant: "allIsQuiet",
    sql: ["create or replace function expire_leases(_limit integer) returns integer language sql as 'select 0'"]
  },
  "a claim that does not look at keys": {
    story: urgency,
    invariant: "keysAreInOrder",
    sql: [
      `create or replace function admit_by_key(
        _queue integer, _messages queued_message[], _at_once integer, _every interval, _burst integer
      ) returns queued_message[] language sql as 'select _messages'`
    ]
  },
  "a message that ends and keeps its key": {
    story: urgency,
    invariant: "allIsQuiet",
    sql: [
      `create or replace function end_messages(_queue integer, _messages queued_message[], _state text)
      returns void language sql as ''`
    ]
  },
  "an inbox record that is not in the transaction of its effect": {
    story: brokenOff,
    invariant: "effectsHappenOnce",
    database: (postgres) => ({ ...postgres, transact: identity })
  },
  "a sender that says that a message is there before the commit": {
    story: rolledBack,
    instead: toldTooEarly,
    invariant: "nothingAcknowledgedIsLost"
  },
  "a message that is sent outside of the transaction": {
    story: rolledBack,
    invariant: "nothingIsThereThatWasNotSent",
    database: (postgres) => ({ ...postgres, transact: identity, inTransaction: Effect.succeed(false) })
  },
  "a send that is repeated though it was done": {
    story: silence,
    invariant: "nothingIsThereThatWasNotSent",
    database: (postgres) => ({
      ...postgres,
      rows: (text, parameters) =>
        text.includes("insert into message (")
          ? Effect.andThen(postgres.rows(text, parameters), postgres.rows(text, parameters))
          : postgres.rows(text, parameters)
    })
  }
}

/** Puts other functions in the place of some of the database, for the time of the scope. */
const replaced = Effect.fnUntraced(function*(sql: ReadonlyArray<string>) {
  const { rows } = yield* Postgres
  for (const text of sql) {
    const [, name = ""] = /function (\w+)/.exec(text) ?? []
    const [before] = yield* rows("select pg_get_functiondef($1::regproc)", [Pg.text(name)])
    yield* Effect.acquireRelease(rows(text, []), () => Effect.orDie(rows(String(before?.[0]), [])))
  }
})

const empty = Effect.flatMap(Postgres, ({ sql }) =>
  Effect.andThen(
    sql`
      truncate effect, message, message_later, message_parked, message_key, message_lease, message_unique, queue,
        queue_count, queue_delta, dead_letter, inbox`,
    sql`update balance set total = 0`
  ))

/** The history of a story. */
const play = (story: Story, { database = identity, sql = [] }: Pick<Mutant, "database" | "sql"> = {}) => {
  const events: Array<Event> = []
  const record: Record = (event) => events.push(event)
  const queues = QueuePull.layer.pipe(
    Layer.provideMerge(Queues.layer),
    Layer.provideMerge(Watched.layer({ worker: "one", record, way: Failpoint.safe })),
    Layer.provide(Layer.effect(Postgres, Effect.map(Postgres, database)))
  )
  return Effect.gen(function*() {
    yield* replaced(sql)
    const queue = yield* declared("story")
    yield* story(queue, record)
    return { events, remains: yield* remains([queue]) }
  }).pipe(Effect.scoped, Effect.provide(Layer.fresh(queues)), Effect.tap(empty))
}

const Database = Layer.effectDiscard(makeTables).pipe(
  Layer.provideMerge(PostgresTest.layer({ migrations: [migrations] }))
)

layer(Database, { excludeTestServices: true })("the checkers of histories find", (it) => {
  for (const [name, { instead, invariant, story, ...mutant }] of Object.entries(mutants)) {
    it.effect(name, () =>
      Effect.gen(function*() {
        deepStrictEqual(Invariants.violations(yield* play(story)), [])
        assert.isNotEmpty(Invariants.invariants[invariant](yield* play(instead ?? story, mutant)))
      }))
  }
})
