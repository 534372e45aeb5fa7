/**
 * Processes: what happens in the world because of a fact. Sends a message, appends to another stream, starts a job.
 *
 * **When to use**
 *
 * Use for effects that must happen once and never again because a read model is rebuilt. What only fills tables is a projection.
 *
 * **Details**
 *
 * - Each fact is handled in a transaction that also moves the checkpoint and notes in an inbox how far the fact's stream is. So
 *   what the handler does in that transaction (`appendInTransaction`, `Outbox.publish`, rows) happens once; a checkpoint that
 *   somebody sets back leads to nothing that was handled already.
 * - It begins with the facts that come after it was started for the first time, unless it is told to begin elsewhere.
 * - Corrections and retractions are facts of their own here: see `Fact.revision`. What was done is not undone.
 * - A fact whose handling fails is tried again, and parked then together with its stream, in order; `retry` goes on
 *   with it, `skip` after it.
 *
 * **Gotchas**
 *
 * What the handler does outside of the transaction is done at least once.
 *
 * **Example** (Welcoming who registers)
 *
 * ```ts
 * import * as ProcessProjection from "@strata/projections/ProcessProjection"
 *
 * const Welcome = ProcessProjection.make({
 *   name: "welcome",
 *   events: AccountEvents,
 *   handle: ({ event }) => event._tag === "Opened" ? publishWelcome(event.owner) : Effect.void
 * })
 *
 * const WelcomeLayer = ProcessProjection.layer(Welcome)
 * ```
 *
 * @since 0.1.0
 */
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import * as DurableSubscription from "@strata/event-store/DurableSubscription"
import * as Checkpoints from "@strata/event-store/DurableSubscriptionCheckpoints"
import type { SubscriptionError } from "@strata/event-store/DurableSubscriptionError"
import { partitionOf } from "@strata/event-store/DurableSubscriptionFilter"
import type { EventDecodeError, EventSet } from "@strata/event-store/EventDefinition"
import { EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import { beginning, type Fact, type Position } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as GenerationRun from "./GenerationRun.ts"
import * as Inbox from "./Inbox.ts"
import { NotParked } from "./Operations.ts"
import { describe, type Projected } from "./Projection.ts"

/**
 * A process.
 *
 * @category models
 * @since 0.1.0
 */
export interface ProcessProjection<out E = never, out R = never> {
  readonly name: string
  readonly filter: DurableSubscription.Options<never, never>["filter"]
  readonly wants: (fact: Fact) => boolean
  readonly handle: (fact: Fact) => Effect.Effect<void, E | EventDecodeError, R>
}

/**
 * How a process is run.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Where it begins when it is first made. Default: `end`. */
  readonly startFrom?: DurableSubscription.StartFrom | undefined
  /** Parts into which streams are divided; fixed once it is made. Default: 4. */
  readonly partitions?: number | undefined
  /** Facts handled in one transaction. Default: 100. */
  readonly batchSize?: number | undefined
  /** How a fact is tried again. Default: `RetryPolicy.standard`. */
  readonly policy?: RetryPolicy.RetryPolicy | undefined
}

/**
 * A process that runs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Running<E, R> {
  readonly subscription: DurableSubscription.DurableSubscription
  /** Keys that wait: tenant and stream with `/` between. */
  readonly waiting: Effect.Effect<ReadonlyArray<Inbox.WaitingKey>, SqlError>
  /** Handles the facts of a key that wait, and lets it go on. */
  readonly retry: (key: string) => Effect.Effect<void, ReleaseError<E>, R>
  /** The same without the fact that could not be handled. */
  readonly skip: (key: string) => Effect.Effect<void, ReleaseError<E>, R>
}

/**
 * Why a key does not go on.
 *
 * @category errors
 * @since 0.1.0
 */
export type ReleaseError<E> = E | NotParked | EventDecodeError | EventStoreError | SqlError | TransactionError

/**
 * Makes a process.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <Event extends { readonly _tag: string }, E = never, R = never>(options: {
  /** Names it in a store, for ever: with another name it begins again. */
  readonly name: string
  readonly events: EventSet<Event>
  /** Categories of the streams it looks at. Default: all. */
  readonly categories?: ReadonlyArray<string> | undefined
  readonly handle: (projected: Projected<Event>) => Effect.Effect<unknown, E, R>
}): ProcessProjection<E, R> => {
  const { filter, name, wants } = describe(options)
  return {
    name,
    filter,
    wants,
    handle: (fact) =>
      Effect.flatMap(
        Effect.fromResult(options.events.decode(fact)),
        (event) => Effect.asVoid(options.handle({ event, fact }))
      )
  }
}

/**
 * Runs a process until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*<E, R>(
  process: ProcessProjection<E, R>,
  options: Options = {}
): Effect.fn.Return<Running<E, R>, SubscriptionError, EventStore | Postgres | R | Scope.Scope> {
  const { batchSize = 100, partitions = 4, policy = RetryPolicy.standard, startFrom = "end" } = options
  const { name } = process
  const store = yield* EventStore
  const { sql, transact } = yield* Postgres
  const inbox = Inbox.make(sql, store.name, name)
  const subscriptionName = `process/${name}`

  /** Handles those that were not handled yet; facts of keys that wait are counted. */
  const handler = Effect.fnUntraced(function*(batch: NonEmptyReadonlyArray<Fact>) {
    const wanted = batch.filter(process.wants)
    const marks = new Map((yield* inbox.marks([...new Set(wanted.map(Inbox.keyOf))])).map((mark) => [mark.key, mark]))
    const held = new Map<string, number>()
    const last = new Map<string, Fact>()
    for (const fact of wanted) {
      const key = Inbox.keyOf(fact)
      const mark = marks.get(key)
      if (mark?.isWaiting === true) held.set(key, (held.get(key) ?? 0) + 1)
      else if (mark === undefined || fact.position > mark.position) {
        yield* process.handle(fact)
        last.set(key, fact)
      }
    }
    yield* inbox.handled([...last.values()])
    yield* inbox.hold(held)
  })

  const subscription = yield* DurableSubscription.run<E | EventDecodeError | SqlError, R>({
    name: subscriptionName,
    filter: process.filter,
    key: Inbox.keyOf,
    startFrom,
    partitions,
    batchSize,
    retry: RetryPolicy.schedule(policy, { classify: GenerationRun.classify, idempotent: true }),
    handler,
    park: inbox.park
  })

  /** The facts of a stream after one position, up to another, in the order of the log. */
  const between = Effect.fnUntraced(function*(row: Inbox.WaitingKey, after: Position, upTo: Position) {
    const found: Array<Fact> = []
    let fromVersion: number | undefined
    do {
      const page = yield* store.readStreamPage(row.stream, { fromVersion }).pipe(
        Effect.provideService(CurrentTenant, row.tenant)
      )
      found.push(...page.facts.filter((fact) => fact.position > after && fact.position <= upTo && process.wants(fact)))
      fromVersion = page.next ?? undefined
    } while (fromVersion !== undefined)
    return found
  })

  const release = (key: string, skip: boolean): Effect.Effect<void, ReleaseError<E>, R> =>
    transact(
      Effect.gen(function*() {
        const row = yield* inbox.take(key)
        if (row === undefined) return yield* new NotParked({ projection: name, key })
        const checkpoints = yield* Checkpoints.read(sql, store.name, [subscriptionName])
        const partition = partitionOf(key, partitions)
        const upTo = checkpoints.find((each) => each.partition === partition)?.position ?? beginning
        const facts = yield* between(row, skip ? row.position : row.handled, upTo)
        for (const fact of facts) yield* process.handle(fact)
        yield* inbox.goOn(key, facts.at(-1)?.position ?? row.position)
      })
    )

  return {
    subscription,
    waiting: inbox.waiting,
    retry: (key) => release(key, false),
    skip: (key) => release(key, true)
  }
})

/**
 * Runs a process for as long as the layer lives.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <E, R>(
  process: ProcessProjection<E, R>,
  options?: Options
): Layer.Layer<never, SubscriptionError, EventStore | Postgres | Exclude<R, Scope.Scope>> =>
  Layer.effectDiscard(run(process, options))
