/**
 * Makes the effect of a message happen once, though the message may come twice.
 *
 * **Details**
 *
 * That a consumer has handled a message is written in the transaction of its own writes: both are there, or neither is. A message
 * that comes again is recognized, and nothing is done.
 *
 * **Gotchas**
 *
 * It is known for thirty days (`QueuePolicies.remember`) that a message was handled. One that comes again later is handled again.
 *
 * Only what is written in the transaction happens once. What is done elsewhere, like a mail that is sent, needs a key there.
 *
 * **Example** (A counter that counts each message once)
 *
 * ```ts
 * import * as Inbox from "@strata/queues/Inbox"
 * import type { Message } from "@strata/queues/Message"
 * import { Postgres } from "@strata/postgres/Postgres"
 * import * as Effect from "effect/Effect"
 *
 * const count = (message: Message<{ readonly counter: string }>) =>
 *   Effect.flatMap(Postgres, ({ sql }) =>
 *     sql`update counter set value = value + 1 where name = ${message.payload.counter}`
 *   ).pipe(Inbox.once("counting", message))
 * ```
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { SqlError } from "effect/sql/SqlError"
import type { MessageId } from "./Message.ts"

/**
 * Runs an effect in a transaction with the record that `consumer` has handled the message; `None`, without running it, when it has
 * before. Inside a transaction it joins that one.
 *
 * @category combinators
 * @since 0.1.0
 */
export const once = (consumer: string, message: { readonly id: MessageId }) =>
<A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<Option.Option<A>, E | SqlError | TransactionError, R | Postgres> =>
  Effect.flatMap(Postgres, ({ rows, transact }) =>
    transact(
      // Waits for another transaction that is just handling the same message.
      Effect.flatMap(
        rows(
          "insert into inbox (consumer, message_id) values ($1, $2) on conflict do nothing returning 1",
          [Pg.text(consumer), Pg.bigint(message.id)]
        ),
        (made) => made.length === 0 ? Effect.succeedNone : Effect.asSome(effect)
      ),
      // Running twice is what the record is for.
      { idempotent: true }
    ))
