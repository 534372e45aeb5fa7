/**
 * The queues of a database: makes them, sends to them, and looks at them.
 *
 * **When to use**
 *
 * `declare` a queue where the program starts, `send` wherever something is to be done later, `QueueWorker` to do it.
 *
 * **Details**
 *
 * Inside a transaction of `Postgres.transact` a message is sent with it: it is there when the transaction commits, and is not
 * when it does not. Outside, messages that are sent at the same time are written together. A payload that is too large for a row
 * goes to the `PayloadStore`, and comes back with its message wherever that is looked at.
 *
 * **Gotchas**
 *
 * Who is told that the outcome is not known, since the connection broke, may have sent: repeat under a unique key.
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Traceparent from "@strata/postgres/Traceparent"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type { SqlError } from "effect/sql/SqlError"
import type * as Stream from "effect/Stream"
import * as History from "./History.ts"
import type { MessageId, NewMessage, Sent } from "./Message.ts"
import { layerPostgres, PayloadStore, type PayloadStoreError } from "./PayloadStore.ts"
import type { Queue } from "./Queue.ts"
import * as QueueCatalog from "./QueueCatalog.ts"
import type { Stats, StoredQueue } from "./QueueCatalog.ts"
import { InvalidMessage, QueueError, QueueFull, unavailable } from "./QueueError.ts"
import * as QueueMetrics from "./QueueMetrics.ts"
import { type Policies, QueuePolicies } from "./QueuePolicies.ts"
import type * as QueueSettings from "./QueueSettings.ts"
import * as GroupSend from "./sending/GroupSend.ts"
import * as LargeSend from "./sending/LargeSend.ts"
import * as Payload from "./sending/Payload.ts"
import * as PreparedMessage from "./sending/PreparedMessage.ts"
import * as SendStatement from "./sending/SendStatement.ts"
import * as Upkeep from "./Upkeep.ts"
import type { Waiting } from "./Waitings.ts"
import * as Waitings from "./Waitings.ts"

// -------------------------------------------------------------------------------------------------------- service

/**
 * The queues of a database.
 *
 * @category services
 * @since 0.1.0
 */
export class Queues extends Context.Service<Queues, {
  /** Makes a queue where there is none of its name, with the settings it has. One that is there keeps its own. */
  readonly declare: (
    queue: { readonly name: string; readonly settings: QueueSettings.QueueSettings }
  ) => Effect.Effect<StoredQueue, QueueError>
  /** Puts other settings in force. */
  readonly configure: (
    queue: { readonly name: string },
    settings: QueueSettings.QueueSettings
  ) => Effect.Effect<StoredQueue, QueueError>
  /** A queue as it is stored now. */
  readonly find: (queue: { readonly name: string }) => Effect.Effect<StoredQueue, QueueError>
  readonly all: Effect.Effect<ReadonlyArray<StoredQueue>, QueueError>
  /** Nothing of it is claimed until it is resumed. */
  readonly pause: (queue: { readonly name: string }) => Effect.Effect<void, QueueError>
  readonly resume: (queue: { readonly name: string }) => Effect.Effect<void, QueueError>
  /** Sends messages, all of them or none. Answers in their order. */
  readonly send: <A>(
    queue: Queue<A>,
    messages: ReadonlyArray<NewMessage<A>>
  ) => Effect.Effect<ReadonlyArray<Sent>, QueueError>
  readonly stats: (queue: { readonly name: string }) => Effect.Effect<Stats, QueueError>
  /** Takes back a message that has not begun. False when there is none, or somebody is just claiming it. */
  readonly withdraw: (queue: { readonly name: string }, id: MessageId) => Effect.Effect<boolean, QueueError>
  /**
   * Messages that may be claimed, in the order in which they will be, at most `limit` (100). Takes nothing. A page ends early
   * where payloads are large, so go on until one is empty.
   */
  readonly browse: (
    queue: { readonly name: string },
    page?: { readonly after?: Waiting | undefined; readonly limit?: number | undefined }
  ) => Effect.Effect<ReadonlyArray<Waiting>, QueueError>
  /**
   * Messages that come, as far as they are still there when it looks: several times a second. Takes nothing.
   */
  readonly tail: (queue: { readonly name: string }) => Stream.Stream<Waiting, QueueError>
  /** Takes away all messages that wait, and tells how many. What runs goes on. */
  readonly purge: (queue: { readonly name: string }) => Effect.Effect<number, QueueError>
  /**
   * Messages that are done, of a queue whose settings keep a `history`: in the order of sending, at most `limit` (100) of them. A
   * page ends early where payloads are large, so go on until one is empty.
   */
  readonly history: (
    queue: { readonly name: string },
    filter?: History.Filter,
    page?: { readonly after?: MessageId | undefined; readonly limit?: number | undefined }
  ) => Effect.Effect<ReadonlyArray<History.Done>, QueueError>
  /** Where large payloads are. */
  readonly payloads: PayloadStore["Service"]
}>()("@strata/queues/Queues") {}

/**
 * The queues of the database in the context, with their large payloads in the `PayloadStore`. Needs the tables of `QueuesMigrations`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNoDeps: Layer.Layer<Queues, never, Postgres | PayloadStore> = Layer.effect(
  Queues,
  Effect.gen(function*() {
    const postgres = yield* Postgres
    const payloads = yield* PayloadStore
    const policies = yield* QueuePolicies
    const catalog = QueueCatalog.make(postgres, policies.refresh)
    yield* Effect.forkScoped(Upkeep.run(postgres, policies, payloads))
    return Queues.of({
      declare: (queue) => catalog.declare(queue),
      configure: catalog.configure,
      find: catalog.find,
      all: catalog.all,
      pause: (queue) => catalog.setPaused(queue, true),
      resume: (queue) => catalog.setPaused(queue, false),
      send: yield* makeSend(postgres, payloads, policies, catalog),
      stats: catalog.stats,
      ...Waitings.make(postgres, catalog.known, policies, payloads),
      history: History.make(postgres, catalog.known, payloads),
      payloads
    })
  })
)

/**
 * The queues of the database in the context, with their large payloads in it too. Needs the tables of `QueuesMigrations`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Queues, never, Postgres> = Layer.provide(layerNoDeps, layerPostgres)

// ------------------------------------------------------------------------------------------------- implementation

const makeSend = Effect.fnUntraced(function*(
  postgres: Postgres["Service"],
  payloads: PayloadStore["Service"],
  policies: Policies,
  catalog: ReturnType<typeof QueueCatalog.make>
) {
  const statement = SendStatement.make(postgres)
  const write = (calls: ReadonlyArray<GroupSend.Call>, channels?: ReadonlyArray<string>) =>
    statement(calls, catalog.isBounded, channels)
  const group = yield* GroupSend.make({
    write,
    retry: policies.resend,
    full: (call, channels) => write([call], channels)
  })
  const large = LargeSend.make(payloads, write)
  const context = yield* Effect.context<never>()

  const wake = (queue: number) => postgres.wake(channelOf(queue))
  // Workers would find nothing before the commit. Whoever rolls back has nobody to wake.
  const wakeAtCommit = (queue: number) =>
    Effect.flatMap(
      postgres.atCommit(Effect.void),
      (committed) => Effect.forkDetach(Effect.ignore(Effect.andThen(committed, wake(queue))))
    )

  const send: Queues["Service"]["send"] = Effect.fnUntraced(function*(queue, messages) {
    if (messages.length === 0) return []
    const { id, weighs } = yield* catalog.known(queue)
    const traceparent = yield* Traceparent.current
    const prepared = yield* Effect.fromResult(
      prepareAll(queue, messages, { queue: id, queueName: queue.name, traceparent }, policies)
    )
    const isInside = yield* postgres.inTransaction
    const weight = LargeSend.weightOf(prepared)
    if (weight !== "light" && !weighs) {
      yield* Effect.mapError(QueueCatalog.setWeighs(postgres, id), unavailable("send"))
    }
    const notifies = !isInside && weight !== "large" && (yield* postgres.mayNotify(channelOf(id)))
    const written: Effect.Effect<
      ReadonlyArray<Sent>,
      QueueError | SqlError | TransactionError | PayloadStoreError
    > = weight === "large"
      // What a full queue refuses has to be all of it.
      ? postgres.transact(Effect.flatMap(large(prepared), (outcomes) => sentOf(queue.name, outcomes)))
      : Effect.flatMap(
        isInside ? write([prepared]) : group(prepared, notifies ? [channelOf(id)] : []),
        (outcomes) => sentOf(queue.name, outcomes)
      )
    const sent = yield* written.pipe(
      Effect.tapError(() => notifies ? wake(id) : Effect.void),
      Effect.mapError((error) => error._tag === "QueueError" ? error : unavailable("send")(error))
    )
    if (!notifies) yield* isInside ? wakeAtCommit(id) : wake(id)
    const metrics = QueueMetrics.of(context, queue.name)
    for (const { outcome } of sent) if (outcome !== "skipped") metrics.sent++
    return sent
  })
  return send
})

/** The path of a problem names the message where there are several. */
const prepareAll = <A>(
  queue: Queue<A>,
  messages: ReadonlyArray<NewMessage<A>>,
  surroundings: PreparedMessage.Surroundings,
  bounds: Pick<Policies, "inline" | "largest">
): Result.Result<ReadonlyArray<PreparedMessage.PreparedMessage>, QueueError> => {
  const prepared: Array<PreparedMessage.PreparedMessage> = []
  for (const message of messages) {
    const made = Result.flatMap(
      Payload.encode(queue, message.payload, bounds),
      (payload) => PreparedMessage.prepare(message, payload, surroundings)
    )
    if (Result.isFailure(made)) {
      const { path, problem } = made.failure
      const place = messages.length === 1 ? path : `messages[${prepared.length}].${path}`
      return Result.fail(new QueueError({ reason: new InvalidMessage({ queue: queue.name, path: place, problem }) }))
    }
    prepared.push(made.success)
  }
  return Result.succeed(prepared)
}

/** A queue that is full refuses all of a call. */
const sentOf = (queue: string, outcomes: ReadonlyArray<SendStatement.Outcome>) =>
  Effect.forEach(outcomes, (outcome): Effect.Effect<Sent, QueueError> =>
    outcome.outcome === "full"
      ? Effect.fail(
        new QueueError({
          reason: new QueueFull({
            queue,
            depth: outcome.depth,
            maxDepth: outcome.maxDepth,
            retryAfter: Duration.seconds(outcome.retryAfter)
          })
        })
      )
      : Effect.succeed(outcome))

/**
 * The channel on which it is told that messages were sent to a queue.
 *
 * @category getters
 * @since 0.1.0
 */
export const channelOf = (queue: number): string => `strata_queue_${queue}`
