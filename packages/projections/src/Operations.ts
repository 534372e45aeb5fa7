/**
 * What a person does with projections: rebuild, switch, roll back, drop, pause, and let keys go on that wait.
 *
 * **Details**
 *
 * Each works from any process that has the projection's value, whoever runs it.
 *
 * @since 0.1.0
 */
import * as DurableSubscription from "@strata/event-store/DurableSubscription"
import * as Checkpoints from "@strata/event-store/DurableSubscriptionCheckpoints"
import type { SubscriptionError } from "@strata/event-store/DurableSubscriptionError"
import { EventStore } from "@strata/event-store/EventStore"
import { beginning } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as SqlState from "@strata/postgres/SqlState"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Pace from "@strata/resilience/retry/Pace"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import * as Erasures from "./Erasures.ts"
import * as Folding from "./Folding.ts"
import {
  type BuildOptions,
  type Generation,
  type GenerationBehind,
  type Generations,
  missing,
  type NoSuchGeneration,
  subscriptionOf
} from "./Generation.ts"
import type { InvalidTables } from "./GenerationSchema.ts"
import * as ParkedKeys from "./ParkedKeys.ts"
import type { Projection } from "./Projection.ts"
import * as Verification from "./Verification.ts"

/**
 * The key does not wait, or not in a generation that this process has the code for.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotParked extends Schema.TaggedError<NotParked>()("NotParked", {
  projection: Schema.String,
  key: Schema.String
}) {
  override get message() {
    return `Key ${this.key} of projection ${this.projection} does not wait`
  }
}

/**
 * Readers see a generation that is applied in the transactions that write facts: it cannot be held up without them.
 *
 * @category errors
 * @since 0.1.0
 */
export class AppliedInline extends Schema.TaggedError<AppliedInline>()("AppliedInline", {
  projection: Schema.String
}) {
  override get message() {
    return `Projection ${this.projection} is applied by whoever appends, so it cannot be paused: start it without \`inline\` first`
  }
}

/**
 * The facts of the key cannot be applied yet: it goes on waiting.
 *
 * @category errors
 * @since 0.1.0
 */
export class StillParked extends Schema.TaggedError<StillParked>()("StillParked", {
  projection: Schema.String,
  key: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `Key ${this.key} of projection ${this.projection} still cannot be applied: ${Folding.describe(this.cause)}`
  }
}

/**
 * Why an operation could not be done.
 *
 * @category errors
 * @since 0.1.0
 */
export type OperationError = SqlError | TransactionError | SubscriptionError

/**
 * The operations. Names of projections come first.
 *
 * @category models
 * @since 0.1.0
 */
export interface Operations {
  /** Begins one more generation of the same version, unless one is being built; processes that run projections build it. */
  readonly rebuild: (name: string, options?: {
    /** Default: that of the layer. */
    readonly partitions?: number | undefined
    /** Facts a second, all partitions together. Default: as fast as it goes. */
    readonly rate?: number | undefined
    /** Default: that of the layer. */
    readonly switch?: "automatic" | "manual" | undefined
  }) => Effect.Effect<Generation, InvalidTables | OperationError>
  /** Switches readers to a generation; by default the newest that is being built. */
  readonly switchTo: (
    name: string,
    number?: number
  ) => Effect.Effect<Generation, NoSuchGeneration | GenerationBehind | OperationError>
  /** Switches readers back to the generation that they saw before. */
  readonly rollback: (name: string) => Effect.Effect<Generation, NoSuchGeneration | GenerationBehind | OperationError>
  /** Compares a generation with the one that readers see, which goes on; by default the newest that is being built. */
  readonly verify: (
    name: string,
    number?: number
  ) => Effect.Effect<Verification.Report, Verification.VerificationError>
  /** Removes a generation that readers do not see, with its tables. */
  readonly drop: (name: string, number: number) => Effect.Effect<void, NoSuchGeneration | OperationError>
  /**
   * Every process ends the batches it applies for the projection, and stops. Waits for them, ten seconds at most. Refused while appends
   * apply it.
   */
  readonly pause: (name: string) => Effect.Effect<void, AppliedInline | OperationError>
  readonly resume: (name: string) => Effect.Effect<void, OperationError>
  /** The keys that wait, in all generations. */
  readonly parked: (name: string) => Effect.Effect<ReadonlyArray<ParkedKeys.ParkedKey>, OperationError>
  /** Makes a key again from all that is believed of it, and lets it go on. */
  readonly retry: (name: string, key: string) => Effect.Effect<void, NotParked | StillParked | OperationError>
  /** The same without the fact that could not be applied, which this version of the projection leaves out for ever. */
  readonly skip: (name: string, key: string) => Effect.Effect<void, NotParked | StillParked | OperationError>
}

/** Readers go first, for a while. */
const giveWay = RetryPolicy.make({ attempts: 200, base: "20 millis", cap: "200 millis", total: "30 seconds" })

/**
 * The operations on the projections of a store.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ build, context, generations, hint, postgres, projections, store }: {
  readonly projections: ReadonlyArray<Projection>
  readonly store: EventStore["Service"]
  readonly postgres: Postgres["Service"]
  readonly generations: Generations
  readonly build: BuildOptions
  readonly hint: Effect.Effect<void>
  /** Where the keys of subjects are, if there are any. */
  readonly context: Context.Context<never>
}): Operations => {
  const { sql, transact } = postgres

  const named = (name: string) => {
    const projection = projections.find((each) => each.name === name)
    return projection === undefined
      ? Effect.die(new RangeError(`There is no projection named ${name}`))
      : Effect.succeed(projection)
  }

  const subscriptions = (
    name: string,
    use: (subscription: DurableSubscription.DurableSubscription) => Effect.Effect<void, SubscriptionError>
  ) =>
    Effect.flatMap(
      generations.ofName(name),
      (all) =>
        // The subscription of an inline one stays at rest.
        Effect.forEach(all.filter(({ applied }) => applied !== "inline"), (generation) =>
          DurableSubscription.open(subscriptionOf(generation)).pipe(
            Effect.flatMap(use),
            Effect.catchReason("SubscriptionError", "UnknownSubscription", () => Effect.void)
          ), { discard: true })
    ).pipe(
      Effect.provideService(EventStore, store),
      Effect.provideService(Postgres, postgres)
    )

  const switchTo = (name: string, find: (all: ReadonlyArray<Generation>) => Generation | undefined, without: string) =>
    Effect.gen(function*() {
      const generation = find(yield* generations.ofName(name))
      if (generation === undefined) return yield* missing(name, without)
      const switched = yield* RetryPolicy.retry(generations.switchTo(name, generation.number), {
        policy: giveWay,
        classify: (error) => SqlState.classify(error) === "retryable" ? FailureClass.transient : FailureClass.permanent,
        idempotent: true
      })
      yield* hint
      return switched
    })

  /** In one transaction: the key's lock keeps batches out, then the checkpoint of its partition tells what is believed. */
  const release = Effect.fnUntraced(function*(name: string, key: string, skip: boolean) {
    const projection = yield* named(name)
    yield* Erasures.refreshKeys
    let released = 0
    for (const generation of yield* generations.ofName(name)) {
      if (generation.version !== projection.version) continue
      const folding = Folding.make(projection, generation, { postgres, store })
      const { parkedKeys } = folding
      const once = Effect.gen(function*() {
        const row = yield* parkedKeys.take(key)
        if (row === undefined) return false
        if (skip) yield* parkedKeys.skip(row)
        const partition = folding.partitionOfParked(row)
        const checkpoints = yield* Checkpoints.read(sql, store.name, [subscriptionOf(generation)])
        yield* folding.release(row, checkpoints.find((each) => each.partition === partition)?.position ?? beginning)
        return true
      })
      const done = yield* transact(once, { idempotent: true }).pipe(
        Effect.catchIf(
          (error) => error._tag !== "TransactionError" && SqlState.classify(error) === "permanent",
          (cause) =>
            Effect.andThen(
              parkedKeys.failedAgain(key, Folding.describe(cause)),
              Effect.fail(new StillParked({ projection: name, key, cause }))
            )
        ),
        Effect.catchTags({ EventStoreError: Effect.die, EventDecodeError: Effect.die, FactRefused: Effect.die })
      )
      if (done) released++
    }
    if (released === 0) return yield* new NotParked({ projection: name, key })
  }, Effect.provideContext(context))

  return {
    rebuild: Effect.fnUntraced(function*(name, options = {}) {
      const projection = yield* named(name)
      const made = yield* generations.rebuild(projection, {
        partitions: options.partitions ?? build.partitions,
        manual: options.switch === undefined ? build.manual : options.switch === "manual",
        rate: options.rate
      })
      yield* hint
      return made
    }),
    switchTo: (name, number) =>
      switchTo(
        name,
        (all) =>
          number === undefined
            ? all.findLast(({ state }) => state === "building")
            : all.find((each) => each.number === number),
        number === undefined ? "none is being built" : `there is no generation ${number}`
      ),
    rollback: (name) =>
      switchTo(
        name,
        (all) =>
          all.filter(({ state }) => state === "old").toSorted((a, b) =>
            (a.liveAt ?? 0n) < (b.liveAt ?? 0n) ? 1 : -1
          )[0],
        "there is no generation to go back to"
      ),
    verify: Effect.fnUntraced(function*(name, number) {
      const projection = yield* named(name)
      const all = yield* generations.ofName(name)
      const live = all.find(({ state }) => state === "live")
      const other = number === undefined
        ? all.findLast(({ state }) => state === "building")
        : all.find((each) => each.number === number)
      if (live === undefined || other === undefined || live.id === other.id) {
        return yield* missing(name, "there is no other generation to compare with the live one")
      }
      if (other.version !== projection.version) {
        return yield* missing(
          name,
          `generation ${other.number} is of version ${other.version}, which this process does not have`
        )
      }
      return yield* Verification.verify(projection, { live, other, patience: "30 seconds" }).pipe(
        Effect.provideService(EventStore, store),
        Effect.provideService(Postgres, postgres),
        Effect.provideContext(context)
      )
    }),
    drop: Effect.fnUntraced(function*(name, number) {
      const generation = (yield* generations.ofName(name)).find((each) => each.number === number)
      if (generation !== undefined && generation.state !== "live") {
        yield* DurableSubscription.open(subscriptionOf(generation)).pipe(
          Effect.flatMap(({ remove }) => remove),
          Effect.catchReason("SubscriptionError", "UnknownSubscription", () => Effect.void),
          Effect.provideService(EventStore, store),
          Effect.provideService(Postgres, postgres)
        )
      }
      yield* generations.drop(name, number)
      yield* hint
    }),
    pause: Effect.fnUntraced(function*(name) {
      if ((yield* generations.ofName(name)).some(({ applied }) => applied === "inline")) {
        return yield* new AppliedInline({ projection: name })
      }
      yield* subscriptions(name, ({ pause, status }) =>
        Effect.andThen(
          pause,
          Effect.repeat(Pace.after("10 millis")(status), {
            until: ({ partitions }) => partitions.every(({ owner }) => owner === null)
          }).pipe(Deadline.within("10 seconds"), Effect.catchTag("DeadlineExceeded", () => Effect.void))
        ))
    }),
    resume: (name) => subscriptions(name, ({ resume }) => resume),
    parked: (name) =>
      Effect.flatMap(generations.ofName(name), (all) =>
        Effect.map(
          Effect.forEach(all, (generation) => ParkedKeys.make(postgres, store.name, generation).all),
          (keys) => keys.flat()
        )),
    retry: (name, key) => release(name, key, false),
    skip: (name, key) => release(name, key, true)
  }
}
