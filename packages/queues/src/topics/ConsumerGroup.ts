/**
 * A group of consumers of topics: it gets every message, each partition is read by one of its members at a time, and how far it is commits
 * with what its handler wrote.
 *
 * **When to use**
 *
 * `layer` where a program takes part, `run` where a scope of its own is wanted. Any number of processes may take part in one group.
 * Other groups get the same messages.
 *
 * **Details**
 *
 * - Messages of one key are handled in order, one after the other. So are those of one partition, as long as none fails.
 * - With `transactional` delivery the handler runs in the transaction in which the positions of its partitions move: what it writes to
 *   the database happens once. With `atLeastOnce` they move after it, a fifth of a second later
 *   or so: what was handled since is handled again after a crash.
 * - A batch that fails is handled again message by message. A message that fails then is put aside in the group's queue, and so are those
 *   of its key that come after it: it is tried again by that queue's retry policy, and is a dead letter in the end. Then its key goes
 *   on. Meanwhile the partition does. See `deadLettersOf`.
 * - When members come and go, only the partitions that move stand still, until their owner has ended the batch it is at.
 * - The sessions of members are judged by the database's clock; whoever comes back too late changes nothing.
 * - A member with an `instance` is static: its partitions wait for it over a restart, for as long as its session lasts.
 *
 * **Example** (Orders that are counted once)
 *
 * ```ts
 * import { Postgres } from "@strata/postgres/Postgres"
 * import * as ConsumerGroup from "@strata/queues/topics/ConsumerGroup"
 * import * as Topic from "@strata/queues/topics/Topic"
 * import * as Effect from "effect/Effect"
 * import * as Schema from "effect/Schema"
 *
 * const Orders = Topic.make({ name: "orders", payload: Schema.Struct({ order: Schema.Int }) })
 *
 * const counting = ConsumerGroup.layer({
 *   name: "counting",
 *   topics: [Orders],
 *   startFrom: "beginning",
 *   handler: (orders) =>
 *     Effect.flatMap(Postgres, ({ sql }) => sql`update counter set value = value + ${orders.length}`)
 * })
 * ```
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as FailureClass from "@strata/resilience/retry/FailureClass"
import type * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Handling from "../consuming/Handling.ts"
import * as Inbox from "../Inbox.ts"
import type { QueueError } from "../QueueError.ts"
import { Queues } from "../Queues.ts"
import type * as QueueSettings from "../QueueSettings.ts"
import * as QueueWorker from "../QueueWorker.ts"
import type * as Assignor from "./group/Assignor.ts"
import * as Feed from "./group/Feed.ts"
import * as Lane from "./group/Lane.ts"
import * as Member from "./group/Member.ts"
import * as Membership from "./group/Membership.ts"
import * as Offsets from "./group/Offsets.ts"
import * as Retries from "./group/Retries.ts"
import type { StartFrom, Topic, TopicMessage } from "./Topic.ts"
import { GroupCancelled, InvalidTopicRequest, TopicError, unavailable } from "./TopicError.ts"
import * as TopicMetrics from "./TopicMetrics.ts"
import { TopicPolicies } from "./TopicPolicies.ts"
import { groupChannel, placeOf, topicChannel, Topics } from "./Topics.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * How a process takes part in a group.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<A, E, R> {
  /** 1 to 128 characters. */
  readonly name: string
  readonly topics: Arr.NonEmptyReadonlyArray<Topic<A>>
  readonly handler: (messages: Arr.NonEmptyReadonlyArray<TopicMessage<A>>) => Effect.Effect<unknown, E, R>
  /** Where the group begins with a topic that it has not read before; from then on it goes on from where it was. */
  readonly startFrom: StartFrom
  /** Whether the positions move in the transaction of the handler or after it. Default: `transactional`. */
  readonly delivery?: "transactional" | "atLeastOnce" | undefined
  /** Messages in a batch at most, 1 to 5,000. Default: 500. */
  readonly batchSize?: number | undefined
  /** Batches that are handled at once, each of other partitions. Default: 1. */
  readonly concurrency?: number | undefined
  /** How partitions are given to members; what the first member says holds. Default: `sticky`. */
  readonly strategy?: Assignor.Strategy | undefined
  /** Names a static member: nobody else has the same one. */
  readonly instance?: string | undefined
  /** What this process is called in the status. Default: its instance, or a UUID. */
  readonly label?: string | undefined
  /** How long a member that gives no sign of life keeps its partitions, 1 second at least. Default: 10 seconds. */
  readonly session?: Duration.Input | undefined
  /** Members above which nobody joins any more. Default: no bound. */
  readonly maxMembers?: number | undefined
  /** Messages a second that this member handles at most, while it catches up. Default: as fast as can be. */
  readonly catchUpRate?: number | undefined
  /** What holds for messages that failed: their retry policy, among others. What is said first holds. */
  readonly retries?: QueueSettings.Options | undefined
  /** Tells the class of a failure. Default: `Handling.classify`. */
  readonly classify?: FailureClass.Classifier<E> | undefined
  /**
   * True for a failure that says nothing of the messages, but that something is out of reach without which nothing can be done: they are
   * tried again as they are, for as long as it takes. So it is with the database. Default: of nothing else.
   */
  readonly isOutage?: ((error: E) => boolean) | undefined
}

/**
 * Handles messages one by one.
 *
 * @category combinators
 * @since 0.1.0
 */
export const each = <A, E, R>(handler: (message: TopicMessage<A>) => Effect.Effect<unknown, E, R>) =>
(
  messages: Arr.NonEmptyReadonlyArray<TopicMessage<A>>
): Effect.Effect<void, E, R> => Effect.forEach(messages, handler, { discard: true })

/**
 * The queue in which the dead letters of a group are, for `DeadLetters`.
 *
 * @category getters
 * @since 0.1.0
 */
export const deadLettersOf = (group: string): { readonly name: string } => ({ name: Retries.queueOf(group).name })

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Takes part until the scope closes. `ended` fails when it cannot any more: the group was cancelled, or another process has
 * taken its instance.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*<A, E, R>(
  options: Options<A, E, R>
): Effect.fn.Return<
  { readonly ended: Effect.Effect<never, TopicError> },
  TopicError | QueueError,
  Topics | Queues | Postgres | R | Scope.Scope
> {
  const { batchSize = 500, concurrency = 1, delivery = "transactional", handler, name } = options
  const session = Duration.fromInputUnsafe(options.session ?? "10 seconds")
  yield* check(options, session)
  const postgres = yield* Postgres
  const queues = yield* Queues
  const topics = yield* Topics
  const policies = yield* TopicPolicies
  const id = yield* Effect.provide(Effect.flatMap(SecureRandom.SecureRandom, (random) => random.uuidV4()), randomness)
  const label = options.label ?? options.instance ?? id

  const retryQueue = Retries.queueOf(name, options.retries)
  const queue = yield* queues.declare(retryQueue)
  const known = new Map<number, Topic<A>>()
  for (const topic of options.topics) known.set((yield* topics.declare(topic)).id, topic)
  const group = yield* open(postgres, {
    name,
    queue: queue.id,
    strategy: options.strategy ?? "sticky",
    topics: [...known.keys()],
    startFrom: options.startFrom
  })
  const nameOf = (topic: number) => known.get(topic)?.name ?? String(topic)
  const offsets = Offsets.make(postgres, { id: group, name }, nameOf)
  const metrics = TopicMetrics.ofGroup(name)
  const hints = new Map<number, number>()
  const hintsOf = (topic: number) => hints.get(topic) ?? 0
  const throttle = Lane.throttle(options.catchUpRate, yield* Clock.Clock)
  const feed = Feed.make({ read: topics.read, hintsOf, batchSize, lanes: concurrency })

  const member = yield* Member.run({
    name,
    membership: Membership.make(postgres, {
      group,
      groupName: name,
      member: id,
      instance: options.instance,
      name: label,
      topics: [...known.keys()].toSorted((one, other) => one - other),
      session,
      maxMembers: options.maxMembers,
      policies
    }),
    heartbeat: Duration.times(session, 1 / 3),
    concurrency,
    runLane: (lane, lost) =>
      Lane.run(lane, {
        group: name,
        topics: known,
        handler,
        delivery,
        throttle,
        classify: options.classify,
        isOutage: options.isOutage,
        worker: label,
        feed,
        offsets,
        retries: Retries.make(postgres, queue.id),
        settings: Effect.map(Effect.orElseSucceed(queues.find(retryQueue), () => queue), ({ settings }) => settings),
        hintsOf,
        lost,
        metrics,
        policies
      }),
    save: (held) =>
      offsets.pass(held.topic, [
        { partition: held.partition, epoch: held.epoch, from: held.saved, to: held.cursor, life: held.life }
      ]),
    nameOf,
    tell: postgres.wake(groupChannel(group)),
    metrics,
    policies
  })

  for (const topic of known.keys()) {
    yield* postgres.wakeups(topicChannel(topic), { here: true }).pipe(
      Stream.runForEach(() =>
        Effect.sync(() => {
          hints.set(topic, (hints.get(topic) ?? 0) + 1)
          member.wake(topic)
        })
      ),
      Effect.withTracerEnabled(false),
      Effect.forkScoped
    )
  }
  yield* postgres.wakeups(groupChannel(group)).pipe(
    Stream.runForEach(() => Effect.sync(member.hear)),
    Effect.withTracerEnabled(false),
    Effect.forkScoped
  )

  // What was put aside comes back through the group's queue.
  const byName = new Map(options.topics.map((topic) => [topic.name, topic]))
  yield* Layer.build(
    QueueWorker.layer<Schema.Json, E | Handling.Reject | unknown, R | Postgres>(retryQueue, (message) => {
      const stored = Retries.fromQueue(message)
      const topic = byName.get(stored.topic)
      const payload = topic?.decode(message.payload)
      if (payload === undefined || Result.isFailure(payload)) {
        const why = payload === undefined ? `topic ${stored.topic} is none of the group's` : payload.failure.message
        return Effect.fail(new Handling.Reject({ reason: `The message cannot be read: ${why}` }))
      }
      const handled = Effect.suspend(() => handler([{ ...stored, payload: payload.success }]))
      return delivery === "transactional" ? Inbox.once(retryQueue.name, message)(handled) : handled
    }, { name: label, concurrency })
  )
  return { ended: member.ended }
})

/**
 * Takes part as long as the layer is there.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <A, E, R>(
  options: Options<A, E, R>
): Layer.Layer<never, TopicError | QueueError, Topics | Queues | Postgres | Exclude<R, Scope.Scope>> =>
  Layer.effectDiscard(run(options))

// ------------------------------------------------------------------------------------------------- implementation

const randomness = SecureRandom.layerWebCrypto

const check = <A, E, R>(
  { batchSize = 500, catchUpRate, concurrency = 1, instance, label, maxMembers, name, topics }: Options<A, E, R>,
  session: Duration.Duration
) => {
  const invalid = (path: string, problem: string) =>
    Effect.fail(new TopicError({ reason: new InvalidTopicRequest({ path, problem }) }))
  const isNumber = (n: number, from: number, to: number) => Number.isInteger(n) && n >= from && n <= to
  for (const [path, text] of Object.entries({ name, instance, label })) {
    if (text !== undefined && (text === "" || text.length > 128 || text.includes("\0"))) {
      return invalid(path, "expected 1 to 128 characters, none of them NUL")
    }
  }
  if (new Set(topics.map(({ name }) => name)).size < topics.length) return invalid("topics", "expected different ones")
  if (!isNumber(batchSize, 1, 5000)) return invalid("batchSize", "expected 1 to 5,000")
  if (!isNumber(concurrency, 1, 256)) return invalid("concurrency", "expected 1 to 256")
  if (maxMembers !== undefined && !isNumber(maxMembers, 1, 1_000_000)) {
    return invalid("maxMembers", "expected a whole number above 0")
  }
  if (catchUpRate !== undefined && !(catchUpRate > 0)) return invalid("catchUpRate", "expected a number above 0")
  if (!(Duration.toMillis(session) >= 1000)) return invalid("session", "expected 1 second at least")
  return Effect.void
}

/** Finds a group or makes it, and has it read topics that it has not read before. */
const open = Effect.fnUntraced(function*(
  { rows, transact }: Postgres["Service"],
  { name, queue, startFrom, strategy, topics }: {
    readonly name: string
    readonly queue: number
    readonly strategy: Assignor.Strategy
    readonly topics: ReadonlyArray<number>
    readonly startFrom: StartFrom
  }
) {
  const [kind, position, time] = placeOf(startFrom)
  return yield* transact(
    Effect.gen(function*() {
      yield* rows(
        "insert into consumer_group (name, queue, strategy) values ($1, $2, $3) on conflict (name) do nothing",
        [Pg.text(name), Pg.int(queue), Pg.text(strategy)]
      )
      const [row] = yield* rows("select id, cancelled from consumer_group where name = $1 for no key update", [
        Pg.text(name)
      ])
      const [id, isCancelled]: readonly [number, boolean] = cast(row!)
      if (isCancelled) return yield* new TopicError({ reason: new GroupCancelled({ group: name }) })
      yield* rows("select subscribe_group($1, $2, $3, $4, $5)", [
        Pg.int(id),
        Pg.intArray(topics),
        Pg.text(kind),
        Pg.bigint(position),
        Pg.timestamptz(time)
      ])
      return id
    }),
    { idempotent: true }
  ).pipe(Effect.mapError(unavailable("join")))
})
