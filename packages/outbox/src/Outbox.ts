/**
 * Publishes messages with a transaction: they are there when it commits, and are not when it does not.
 *
 * **When to use**
 *
 * Use inside `Postgres.transact`, for what the world is to be told of what is written there. The facts of an append carry messages
 * by themselves: see `Append.messages` of the event store.
 *
 * **Details**
 *
 * To publish is to insert a row: nobody waits for anybody. A relay moves what is committed to topics and queues, in the order of
 * publishing for the messages of one key: see `OutboxRelay` of the queues.
 *
 * **Example** (An order and its message, or neither)
 *
 * ```ts
 * import * as Outbox from "@strata/outbox/Outbox"
 * import type { Destination } from "@strata/outbox/Publication"
 * import { Postgres } from "@strata/postgres/Postgres"
 * import * as Effect from "effect/Effect"
 *
 * declare const Orders: Destination<{ readonly order: number }>
 *
 * const place = (order: number) =>
 *   Effect.gen(function*() {
 *     const { sql, transact } = yield* Postgres
 *     const outbox = yield* Outbox.Outbox
 *     yield* transact(Effect.andThen(
 *       sql`insert into orders (id) values (${order})`,
 *       outbox.publish(Orders, [{ payload: { order }, key: `${order}` }])
 *     ))
 *   })
 * ```
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Traceparent from "@strata/postgres/Traceparent"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { DestinationClosed, InvalidPublication, OutboxError, OutboxUnavailable } from "./OutboxError.ts"
import * as PreparedMessage from "./PreparedMessage.ts"
import * as Publication from "./Publication.ts"
import * as PublishStatement from "./PublishStatement.ts"

// -------------------------------------------------------------------------------------------------------- service

/**
 * The outbox of a database.
 *
 * @category services
 * @since 0.1.0
 */
export class Outbox extends Context.Service<Outbox, {
  /** Publishes messages to a destination, all of them or none. In a transaction of `Postgres.transact` they go with that. */
  readonly publish: <A>(
    destination: Publication.Destination<A>,
    messages: ReadonlyArray<Publication.NewMessage<A>>
  ) => Effect.Effect<void, OutboxError>
  /** The same for several destinations. */
  readonly publishAll: (publications: ReadonlyArray<Publication.Publication>) => Effect.Effect<void, OutboxError>
}>()("@strata/outbox/Outbox") {}

/**
 * The outbox of the database in the context. Needs the tables of `OutboxMigrations`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Outbox, never, Postgres> = Layer.effect(
  Outbox,
  Effect.gen(function*() {
    const postgres = yield* Postgres
    const random = yield* SecureRandom.SecureRandom
    const publishAll = Effect.fnUntraced(function*(publications: ReadonlyArray<Publication.Publication>) {
      const traceparent = yield* Traceparent.current
      const ids: Array<string> = []
      for (let wanted = PreparedMessage.idsWanted(publications); wanted > 0; wanted--) ids.push(yield* random.uuidV7())
      const messages = yield* Effect.fromResult(Result.mapError(
        PreparedMessage.prepare(publications, {
          tenant: "default",
          correlationId: null,
          causationId: null,
          traceparent
        }, ids),
        (problem) => new OutboxError({ reason: new InvalidPublication(problem) })
      ))
      if (messages.length === 0) return
      const [row] = yield* Effect.mapError(
        telling(postgres, (text) =>
          postgres.rows(publish, [
            Pg.text(text),
            Pg.intArray([]),
            Pg.intArray([]),
            ...PublishStatement.parameters(messages)
          ])),
        (cause) => new OutboxError({ reason: new OutboxUnavailable({ cause }) })
      )
      const destination: string | null = cast(row?.[0] ?? null)
      if (destination !== null) return yield* new OutboxError({ reason: new DestinationClosed({ destination }) })
    })
    return Outbox.of({
      publish: (destination, messages) => publishAll([Publication.make(destination, messages)]),
      publishAll
    })
  })
).pipe(Layer.provide(SecureRandom.layerWebCrypto))

/**
 * The channel on which it is told that something was published.
 *
 * @category constants
 * @since 0.1.0
 */
export const channel = "strata_outbox"

// A notification is sent when the transaction commits.
const publish = `
  select publish_messages($2, $3, ${
  PublishStatement.placeholders(4)
}), case when $1 is not null then pg_notify('${channel}', $1) end`

// ------------------------------------------------------------------------------------------------------- wake-ups

/**
 * Runs a statement that publishes, and tells relays of it. What it is given the statement is to notify with, unless that is null; relays are
 * told afterwards then. In a transaction they are told when it has committed, since they would find nothing before.
 *
 * @category wake-ups
 * @since 0.1.0
 */
export const telling = <A, E>(
  postgres: Postgres["Service"],
  publishing: (text: string | null) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.gen(function*() {
    const isInside = yield* postgres.holdsConnection
    // A transaction takes nothing along that others wait for: nobody knows when it commits.
    const notifies = yield* isInside ? postgres.mayNotify() : postgres.mayNotify(channel)
    if (!notifies) return yield* Effect.tap(publishing(null), wakeRelay(postgres))
    if (isInside) return yield* publishing("")
    return yield* told(postgres, publishing)
  })

/**
 * The same where `Postgres.mayNotify` has said that the statement may.
 *
 * @category wake-ups
 * @since 0.1.0
 */
export const told = <A, E>(
  postgres: Postgres["Service"],
  publishing: (text: string) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.flatMap(postgres.origin, publishing).pipe(
    Effect.onExit(({ _tag }) => _tag === "Success" ? postgres.wakeHere(channel) : postgres.wake(channel))
  )

const wakeRelay = (postgres: Postgres["Service"]): Effect.Effect<void> =>
  Effect.flatMap(postgres.inTransaction, (isInside) =>
    isInside
      ? Effect.flatMap(
        postgres.atCommit(Effect.void),
        (committed) =>
          Effect.asVoid(Effect.forkDetach(Effect.ignore(Effect.andThen(committed, postgres.wake(channel)))))
      )
      : postgres.wake(channel))
