/**
 * Circuits that processes share, one row for each key, by the database's clock.
 *
 * **When to use**
 *
 * Use when many processes call the same thing: what one of them learns, all know within `interval`, and all of them together send
 * no more probes than one would.
 *
 * **Details**
 *
 * A process has a view of each circuit: as it last was in the database, and what the process itself has seen since. A call goes
 * by that view, so *it never waits for the database*, but for the first call of a process to a circuit, and for probes. Outcomes are applied to the view at once, and
 * to the row in the background: every `interval` (1 second), and at once when they changed the view's state or belong to a probe.
 * The same write brings the view up to date. So:
 *
 * - a circuit that is in use is known as it was one `interval` ago, and a few milliseconds more;
 * - after a pause, the first calls go by what was known before it, until the database has answered;
 * - the rates are those of all processes together, and a process that sees enough failures by itself stops at once.
 *
 * A write is a compare-and-set by the row's version: what somebody else wrote in between is read, and the rules are applied to that.
 * A transition is told by the process whose write made it. A probe's turn is found by the view, and its place is taken in
 * the row, so that there are no more probes at a time than the policy allows, whatever the number of processes.
 *
 * While the database fails or does not answer within `timeout` (1 second), each process goes on by its own view, probes included. What
 * it has not written, up to 10 000 outcomes for each circuit, is written when the database is back.
 *
 * Run `ResilienceMigrations` first.
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import { Clock } from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import { CircuitBreakerError, CircuitBreakerStoreError } from "effect/persistence/CircuitBreaker"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import type { SqlError } from "effect/sql/SqlError"
import * as Circuit from "./Circuit.ts"
import * as CircuitState from "./CircuitState.ts"
import { type Circuits, CircuitStore, type Options as Breaker } from "./CircuitStore.ts"

/**
 * - `interval` (1 second): how old a view of a circuit in use may be, and how long an outcome may wait to be written.
 * - `timeout` (1 second): how long a probe, a command or a question waits for the database.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly interval?: Duration.Input | undefined
  readonly timeout?: Duration.Input | undefined
}

/**
 * Keeps circuits in the database.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<CircuitStore, SqlError, Postgres> =>
  Layer.effect(
    CircuitStore,
    Effect.gen(function*() {
      const rows = makeRows(yield* Postgres)
      const clock = yield* makeDatabaseClock(rows)
      const interval = Duration.fromInputUnsafe(options.interval ?? "1 second")
      const timeout = Duration.fromInputUnsafe(options.timeout ?? "1 second")
      return CircuitStore.of({ open: (breaker) => open(rows, clock, { interval, timeout, breaker }) })
    })
  )

// ----------------------------------------------------------------------------------------------------------- rows

interface Row {
  readonly version: bigint
  readonly circuit: CircuitState.Circuit
  readonly now: number
}

type Rows = ReturnType<typeof makeRows>

/** Why the row could not be brought up to date. */
type Failed = SqlError | Schema.SchemaError | CircuitBreakerStoreError

const decodeCircuit = Schema.decodeUnknownEffect(CircuitState.Circuit)

const makeRows = ({ sql }: Postgres["Service"]) => {
  const now: Effect.Effect<number, SqlError> = Effect.map(
    sql<{ now: number }>`select extract(epoch from clock_timestamp())::float8 * 1000 as now`,
    ([row]) => row?.now ?? 0
  )

  // By primary key. One row also when there is none.
  const read = (key: string): Effect.Effect<Row, SqlError | Schema.SchemaError> =>
    Effect.flatMap(
      sql<{ version: bigint | null; state: unknown; now: number }>`
        select c.version, c.state, extract(epoch from clock_timestamp())::float8 * 1000 as now
        from (select ${key}::text as key) as asked left join circuit c on c.key = asked.key`,
      ([row]) =>
        row === undefined || row.version === null
          ? Effect.succeed({ version: 0n, circuit: CircuitState.initial, now: row?.now ?? 0 })
          : Effect.map(decodeCircuit(row.state), (circuit) => ({ version: row.version ?? 0n, circuit, now: row.now }))
    )

  // Locks the row, by primary key, and only when it is still the one that was read. True when it was.
  const write = (key: string, version: bigint, circuit: CircuitState.Circuit): Effect.Effect<boolean, SqlError> =>
    Effect.map(
      sql`
        insert into circuit (key, version, state)
        values (${key}, ${Pg.bigint(version + 1n)}, ${Pg.jsonb(circuit)})
        on conflict (key) do update
        set version = excluded.version, state = excluded.state, updated_at = clock_timestamp()
        where circuit.version = ${Pg.bigint(version)}
        returning version`,
      (rows) => rows.length > 0
    )

  // A scan of a small table, once an hour. Nothing is lost: no row is a closed circuit too.
  const forget = sql`
    delete from circuit
    where updated_at < clock_timestamp() - interval '1 day' and state #>> '{phase,_tag}' = 'Closed'`

  return { now, read, write, forget }
}

// ---------------------------------------------------------------------------------------------------------- clock

/** The database's time, told by the monotonic clock of the process since it was last read. */
interface DatabaseClock {
  readonly now: () => number
  readonly monotonic: () => number
  readonly set: (now: number) => void
}

const makeDatabaseClock = Effect.fnUntraced(function*(rows: Rows): Effect.fn.Return<DatabaseClock, SqlError> {
  const clock = yield* Clock
  const origin = clock.monotonicTimeNanosUnsafe()
  const monotonic = () => Number(clock.monotonicTimeNanosUnsafe() - origin) / 1e6
  let offset = (yield* rows.now) - monotonic()
  return {
    monotonic,
    now: () => monotonic() + offset,
    set: (now) => {
      offset = now - monotonic()
    }
  }
})

// ---------------------------------------------------------------------------------------------------------- views

/** What a process knows of a circuit: `view` is the row as last read, and `pending` and `rejected` applied to it. */
interface Entry {
  readonly key: string
  readonly turn: Semaphore.Semaphore
  view: CircuitState.Circuit
  pending: Array<{ readonly at: number; readonly ended: CircuitState.Ended }>
  rejected: number
  usedAt: number
  syncedAt: number
}

const maxPending = 10_000
const maxEntries = 10_000
const maxAttempts = 20

const makeEntries = () => {
  const entries = new Map<string, Entry>()
  return {
    all: () => entries.values(),
    of: (key: string, now: number): Entry => {
      const found = entries.get(key)
      if (found !== undefined) {
        found.usedAt = now
        return found
      }
      if (entries.size >= maxEntries) {
        for (const [oldest, { pending }] of entries) {
          if (pending.length > 0) continue
          entries.delete(oldest)
          break
        }
      }
      const entry: Entry = {
        key,
        turn: Semaphore.makeUnsafe(1),
        view: CircuitState.initial,
        pending: [],
        rejected: 0,
        usedAt: now,
        syncedAt: -Infinity
      }
      entries.set(key, entry)
      return entry
    }
  }
}

// -------------------------------------------------------------------------------------------------------- circuits

const open = Effect.fnUntraced(function*(rows: Rows, clock: DatabaseClock, options: {
  readonly interval: Duration.Duration
  readonly timeout: Duration.Duration
  readonly breaker: Breaker
}) {
  const { breaker: { rules, tell }, timeout } = options
  const interval = Duration.toMillis(options.interval)
  const entries = makeEntries()
  const wake = yield* Latch.make()
  const fork = yield* FiberSet.makeRuntime()

  const settle = (circuit: CircuitState.Circuit, now: number) => Circuit.settle(rules, circuit, now)

  /** What the process has seen since, applied to a circuit. */
  const replay = (circuit: CircuitState.Circuit, pending: Entry["pending"], now: number) => {
    let step: CircuitState.Step<unknown> = { circuit, decision: undefined, events: [] }
    for (const { at, ended } of pending) {
      const next = Circuit.end(rules, step.circuit, Math.min(at, now), ended)
      step = { ...next, events: [...step.events, ...next.events] }
    }
    return step
  }

  /** Applies to the row what was seen since, and then a change: again while others write in between. */
  const update = <A>(
    entry: Entry,
    change: (circuit: CircuitState.Circuit, now: number) => CircuitState.Step<A>
  ): Effect.Effect<CircuitState.Step<A>, Failed> =>
    Effect.gen(function*() {
      for (let attempt = 0; attempt < maxAttempts; attempt++) {
        const row = yield* rows.read(entry.key)
        clock.set(row.now)
        const pending = [...entry.pending]
        const { rejected } = entry
        const seen = replay(row.circuit, pending, row.now)
        const changed = change(
          rejected === 0 ? seen.circuit : { ...seen.circuit, rejected: seen.circuit.rejected + rejected },
          row.now
        )
        if (changed.circuit !== row.circuit && !(yield* rows.write(entry.key, row.version, changed.circuit))) continue
        entry.pending = entry.pending.slice(pending.length)
        entry.rejected -= rejected
        entry.syncedAt = row.now
        entry.view = replay(changed.circuit, entry.pending, row.now).circuit
        const events = [...seen.events, ...changed.events]
        if (events.length > 0) yield* tell(entry.key, events)
        return changed
      }
      return yield* new CircuitBreakerStoreError({ message: `Circuit "${entry.key}" is written by too many at once` })
    }).pipe(entry.turn.withPermits(1))

  /** Waits for the database no longer than it may. What has been sent goes on. */
  const within = <A>(effect: Effect.Effect<A, Failed>) =>
    Effect.suspend(() => Fiber.join(fork(effect))).pipe(
      Effect.timeout(timeout),
      Effect.mapError((cause) =>
        new CircuitBreakerError({
          reason: cause instanceof CircuitBreakerStoreError
            ? cause
            : new CircuitBreakerStoreError({ message: "The database of the circuit breaker failed", cause })
        })
      )
    )

  yield* synchronize({
    wake,
    interval: options.interval,
    entries: entries.all,
    synchronized: (entry) => update(entry, settle)
  }).pipe(Effect.forkScoped)
  yield* rows.forget.pipe(Effect.ignore, Effect.delay("1 hour"), Effect.forever, Effect.forkScoped)

  /** What a process has never read, it waits for once. */
  const known = (entry: Entry): Effect.Effect<void> =>
    Effect.ignore(within(update(entry, settle))).pipe(
      Effect.andThen(Effect.sync(() => {
        entry.syncedAt = Math.max(entry.syncedAt, clock.now() - interval)
      }))
    )

  const admitByView = (entry: Entry): CircuitState.Decision => {
    const now = clock.now()
    if (now - entry.syncedAt >= interval) wake.openUnsafe()
    const { circuit, decision } = Circuit.admit(rules, entry.view, now)
    entry.view = circuit
    if (decision._tag === "Rejected") entry.rejected++
    return decision
  }

  /** Takes the place of a probe in the row, and gives it back when nobody waits for it any more. */
  const claim = (entry: Entry) =>
    Effect.suspend(() => {
      let abandoned = false
      const claimed = Effect.tap(
        update(entry, (circuit, now) => Circuit.admit(rules, withTurn(circuit), now)),
        ({ decision }) =>
          abandoned && decision._tag === "Admitted"
            ? end(entry.key, { ...decision, outcome: "Ignored", duration: 0 })
            : Effect.void
      )
      return Effect.onExitPrimitive(within(claimed), (exit) => {
        abandoned = Exit.isFailure(exit)
        return undefined
      })
    })

  const admit = (key: string): Effect.Effect<CircuitState.Decision> =>
    Effect.suspend(() => {
      const entry = entries.of(key, clock.now())
      if (entry.syncedAt === -Infinity) return Effect.andThen(known(entry), admit(key))
      const decision = admitByView(entry)
      if (decision._tag === "Rejected" || decision.probe === undefined) return Effect.succeed(decision)
      return Effect.match(claim(entry), { onFailure: () => decision, onSuccess: ({ decision }) => decision })
    })

  const end = (key: string, ended: CircuitState.Ended) =>
    Effect.sync(() => {
      const at = clock.now()
      const entry = entries.of(key, at)
      const step = Circuit.end(rules, entry.view, at, ended)
      entry.view = step.circuit
      if (step.decision !== "Ignored" || ended.probe !== undefined) {
        if (entry.pending.length < maxPending) entry.pending.push({ at, ended })
        if (step.events.length > 0 || ended.probe !== undefined) wake.openUnsafe()
      }
      return step.decision
    })

  const changed = <A>(key: string, change: (circuit: CircuitState.Circuit, now: number) => CircuitState.Step<A>) =>
    Effect.suspend(() => within(update(entries.of(key, clock.now()), change)))

  const circuits: Circuits = {
    admit,
    end,
    command: (key, command) =>
      Effect.asVoid(changed(key, (circuit, now) => Circuit.command(rules, circuit, now, command))),
    read: (key) => Effect.map(changed(key, settle), ({ circuit }) => ({ circuit, now: clock.now() }))
  }
  return circuits
})

/** The turn of a call was found by the view of its process; here it only needs a place. */
const withTurn = (circuit: CircuitState.Circuit): CircuitState.Circuit =>
  circuit.phase._tag === "HalfOpen" ? { ...circuit, phase: { ...circuit.phase, credit: 1 } } : circuit

/** Brings the circuits in use up to date, over and over. */
const synchronize = (options: {
  readonly wake: Latch.Latch
  readonly interval: Duration.Duration
  readonly entries: () => Iterable<Entry>
  readonly synchronized: (entry: Entry) => Effect.Effect<unknown, Failed>
}) => {
  const { entries, interval, synchronized, wake } = options
  const due = (entry: Entry) =>
    entry.pending.length > 0 || entry.rejected > 0 || entry.usedAt > entry.syncedAt ||
    entry.view.phase._tag === "HalfOpen"

  // Said once for each time the database is away.
  let away = false
  const round = Effect.gen(function*() {
    const exits = yield* Effect.forEach(
      [...entries()].filter(due),
      (entry) => Effect.exit(synchronized(entry)),
      { concurrency: 4 }
    )
    const failed = exits.find(Exit.isFailure)
    if (failed !== undefined && !away) {
      yield* Effect.logWarning("Circuit breakers go on without their database", failed.cause)
    }
    if (exits.length > 0) away = failed !== undefined
  })
  return Effect.gen(function*() {
    while (true) {
      yield* Effect.timeoutOrElse(wake.await, { duration: interval, orElse: () => Effect.void })
      wake.closeUnsafe()
      yield* round
      // A database that fails at once is not asked again at once.
      if (away) yield* Effect.sleep(interval)
    }
  })
}
