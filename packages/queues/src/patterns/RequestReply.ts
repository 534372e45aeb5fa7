/**
 * Asks by a message, and waits for the answer.
 *
 * **When to use**
 *
 * Where work has to go through a queue (its limits, its workers, its retries) and somebody waits for what comes of it. Whoever
 * can do without an answer sends a message.
 *
 * **Details**
 *
 * The question carries an id in its headers, `reply` writes the answer under it in the transaction of the handler if there is one, and
 * the one who asks takes it away. When the time is up the message is withdrawn if it has not begun; an answer that comes later is
 * forgotten after an hour.
 *
 * **Example** (A price)
 *
 * ```ts
 * import * as RequestReply from "@strata/queues/patterns/RequestReply"
 * import * as Queue from "@strata/queues/Queue"
 * import * as QueueWorker from "@strata/queues/QueueWorker"
 * import * as Effect from "effect/Effect"
 * import * as Schema from "effect/Schema"
 *
 * const Prices = Queue.make({ name: "prices", payload: Schema.Struct({ article: Schema.String }) })
 * const Price = Schema.Struct({ cents: Schema.Int })
 *
 * const worker = QueueWorker.layer(Prices, RequestReply.replying(Price, () => Effect.succeed({ cents: 100 })))
 * const price = RequestReply.ask(Prices, { payload: { article: "a" } }, { reply: Price, timeout: "5 seconds" })
 * ```
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as SecureRandom from "effect/crypto/SecureRandom"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Hints from "../consuming/Hints.ts"
import type { Message, NewMessage } from "../Message.ts"
import type { PayloadStore } from "../PayloadStore.ts"
import type { Queue } from "../Queue.ts"
import { InvalidMessage, QueueError, unavailable } from "../QueueError.ts"
import { QueuePolicies } from "../QueuePolicies.ts"
import { Queues } from "../Queues.ts"
import * as Payload from "../sending/Payload.ts"
import * as StoredPayload from "../sending/StoredPayload.ts"

/**
 * The header of a question that names where its answer goes.
 *
 * @category constants
 * @since 0.1.0
 */
export const header = "reply-to"

/** The channel on which it is told that there are answers. */
const channel = "strata_replies"

/**
 * The one who was asked could not answer.
 *
 * @category errors
 * @since 0.1.0
 */
export class RequestFailed extends Schema.TaggedError<RequestFailed>()("RequestFailed", {
  queue: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `Queue ${this.queue} answered with a failure: ${this.problem}`
  }
}

/**
 * Sends a question, and waits for the answer. Fails with `DeadlineExceeded` when there is none in time, and with `RequestFailed` when
 * the message was given up or the answer is not what is expected.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ask = Effect.fnUntraced(function*<A, B, I>(
  queue: Queue<A>,
  message: NewMessage<A>,
  options: { readonly reply: Schema.Codec<B, I>; readonly timeout: Duration.Input }
): Effect.fn.Return<
  B,
  QueueError | RequestFailed | Deadline.DeadlineExceeded,
  Queues | Postgres | SecureRandom.SecureRandom
> {
  const queues = yield* Queues
  const postgres = yield* Postgres
  const { poll } = yield* QueuePolicies
  const failed = (problem: string) => new RequestFailed({ queue: queue.name, problem })
  const id = yield* (yield* SecureRandom.SecureRandom).uuidV7()
  const [sent] = yield* queues.send(queue, [{ ...message, headers: { ...message.headers, [header]: id } }])

  const look = Effect.mapError(postgres.rows(take, [Pg.uuid(id)]), unavailable("look for a reply"))
  const answered = Hints.make(postgres, channel, poll).pipe(
    Stream.mapEffect(() => look),
    Stream.filter((found) => found.length > 0),
    Stream.runHead,
    Effect.flatMap((found): Effect.Effect<Answer, QueueError> => {
      const [data, error, storedAt]: ReplyRow = cast(Option.getOrElse(found, () => [])[0] ?? [null, null, null])
      return storedAt === null
        ? Effect.succeed({ data, error, storedAt })
        : Effect.mapError(takeStored(postgres, queues.payloads, id, storedAt), unavailable("look for a reply"))
    }),
    Deadline.within(options.timeout),
    Effect.tapErrorTag(
      "DeadlineExceeded",
      () => sent === undefined ? Effect.void : Effect.ignore(queues.withdraw(queue, sent.id))
    )
  )
  const { data, error, storedAt } = yield* answered
  if (error !== null) return yield* failed(String(error))
  if (storedAt !== null) return yield* failed(`its answer is not in the store, under ${storedAt}`)
  return yield* Effect.mapError(
    Schema.decodeUnknownEffect(Schema.toCodecJson(options.reply))(data),
    ({ message }) => failed(message)
  )
})

interface Answer {
  readonly data: unknown
  readonly error: unknown
  /** Not null: it cannot be had. */
  readonly storedAt: string | null
}

type ReplyRow = readonly [data: unknown, error: unknown, storedAt: string | null]

/** Takes away an answer; one that is stored elsewhere is only told. */
const take = `
  with taken as (delete from queue_reply where id = $1 and stored_at is null returning data, error)
  select data, error, null::text from taken
  union all
  select null, null, stored_at from queue_reply where id = $1 and stored_at is not null`

/** Reads an answer that is stored elsewhere, and takes it away. */
const takeStored = (
  { rows, transact }: Postgres["Service"],
  payloads: PayloadStore["Service"],
  id: string,
  storedAt: string
) =>
  transact(Effect.gen(function*() {
    const place: StoredPayload.Read = { data: null, bytes: null, storedAt }
    const answer = yield* StoredPayload.fetch(payloads, place)
    yield* rows("delete from queue_reply where id = $1", [Pg.uuid(id)])
    yield* StoredPayload.remove(payloads, [storedAt])
    return { data: answer.data, error: null, storedAt: answer.storedAt }
  }))

/**
 * A handler whose result is the answer to whoever asked. For messages that nobody waits for it is a handler like any other.
 *
 * @category combinators
 * @since 0.1.0
 */
export const replying = <A, B, I, E, R>(
  codec: Schema.Codec<B, I>,
  handler: (message: Message<A>) => Effect.Effect<B, E, R>
) => {
  const encode = Schema.encodeEffect(Schema.fromJsonString(Schema.toCodecJson(codec)))
  return (message: Message<A>): Effect.Effect<void, E | Schema.SchemaError | QueueError, R | Postgres | Queues> =>
    Effect.flatMap(handler(message), (answer) => Effect.flatMap(encode(answer), (text) => write(message, text)))
}

/** A message that is handled twice has one answer. */
const write = Effect.fnUntraced(function*(
  { headers, queue }: Message<unknown>,
  text: string
): Effect.fn.Return<void, QueueError, Postgres | Queues> {
  const id = headers[header]
  if (typeof id !== "string") return
  const { rows, transact, wake } = yield* Postgres
  const { payloads } = yield* Queues
  const { data, large } = yield* Effect.fromResult(Result.mapError(
    Payload.encodeText(text, yield* QueuePolicies),
    ({ problem }) => new QueueError({ reason: new InvalidMessage({ queue, path: "reply", problem }) })
  ))
  const insert = (data: string | null, storedAt: string | null) =>
    rows(
      `insert into queue_reply (id, data, stored_at) values ($1, $2::text::json, $3)
      on conflict (id) do nothing returning 1`,
      [Pg.uuid(id), Pg.text(data), Pg.text(storedAt)]
    )
  const written = large === null ? insert(data, null) : transact(Effect.gen(function*() {
    const storedAt = yield* StoredPayload.put(payloads, large)
    const made = yield* insert(null, storedAt)
    if (made.length === 0) yield* StoredPayload.remove(payloads, [storedAt])
  }))
  yield* Effect.mapError(written, unavailable("reply"))
  yield* wake(channel)
})
