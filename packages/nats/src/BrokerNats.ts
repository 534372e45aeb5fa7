/**
 * NATS JetStream as a broker.
 *
 * **Details**
 *
 * Messages are kept in one stream, which is made when it is not there. A message is published with its id, and done when the stream has
 * confirmed it; within the stream's duplicate window it is kept once, however often it comes. A position is the sequence of the stream, and is
 * read by an ordered consumer, so nothing is to be acknowledged.
 *
 * The connection is made again when it breaks, for as long as it takes. What was asked meanwhile fails, and whoever asked asks again.
 *
 * **Example** (A topic that goes out)
 *
 * ```ts
 * import * as BrokerNats from "@strata/nats/BrokerNats"
 *
 * const Nats = BrokerNats.layer({ servers: "nats://localhost:4222", stream: "strata", subjects: ["orders.>"] })
 * ```
 *
 * @since 0.1.0
 */
import { type Consumer, DeliverPolicy, jetstream, jetstreamManager, type JsMsg } from "@nats-io/jetstream"
import { connect, headers as natsHeaders } from "@nats-io/transport-node"
import { Broker, BrokerError, type BrokerMessage, type ReadMessage } from "@strata/queues/brokers/Broker"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"

/**
 * How NATS is reached.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly servers: string | Array<string>
  /** The stream that keeps the messages. */
  readonly stream: string
  /** The subjects that the stream keeps, where it is made. */
  readonly subjects: Array<string>
  /** How long the stream knows the ids of messages, where it is made. Default: 10 minutes. */
  readonly duplicateWindow?: Duration.Input | undefined
}

/**
 * A stream of a NATS server.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  { duplicateWindow = "10 minutes", servers, stream, subjects }: Options
): Layer.Layer<Broker, BrokerError> =>
  Layer.effect(
    Broker,
    Effect.gen(function*() {
      const connection = yield* Effect.acquireRelease(
        asked("connect", () => connect({ servers, maxReconnectAttempts: -1, reconnectTimeWait: 250 })),
        (connection) => Effect.ignore(asked("close", () => connection.close()))
      )
      const manager = yield* asked("connect", () => jetstreamManager(connection))
      const js = jetstream(connection)
      yield* asked("look at the stream", () => manager.streams.info(stream)).pipe(
        Effect.catch(() =>
          asked("make the stream", () =>
            manager.streams.add({
              name: stream,
              subjects,
              duplicate_window: nanosOf(duplicateWindow)
            }))
        )
      )

      /** Consumers that have read up to a position, by their subject. */
      const open = new Map<string, { readonly consumer: Consumer; readonly at: string | undefined }>()
      const consumerAt = (subject: string, after: string | undefined) => {
        const known = open.get(subject)
        open.delete(subject)
        return known !== undefined && known.at === after ?
          Effect.succeed(known.consumer) :
          asked("find a consumer", () =>
            js.consumers.get(stream, {
              filter_subjects: subject,
              ...(after === undefined
                ? { deliver_policy: DeliverPolicy.All }
                : { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: Number(after) + 1 })
            }))
      }

      const read: Broker["Service"]["read"] = Effect.fnUntraced(function*({ after, limit, subject }) {
        const consumer = yield* consumerAt(subject, after)
        const found = yield* asked("read", () => consumer.fetch({ max_messages: limit, expires: 1000 }))
        const messages = yield* Stream.fromAsyncIterable(
          found,
          (cause) => new BrokerError({ operation: "read", cause })
        ).pipe(Stream.map(messageOf), Stream.runCollect)
        const last = messages[messages.length - 1]
        open.set(subject, { consumer, at: last?.position ?? after })
        return messages
      })

      const publish = ({ body, headers: given, id, subject }: BrokerMessage) =>
        asked("publish", () => {
          const headers = natsHeaders()
          for (const [name, value] of Object.entries(given)) headers.set(name, value)
          return js.publish(subject, body, { msgID: id, headers })
        })

      return Broker.of({
        // Those of a subject one after the other: what is kept later than what came after it would be out of order.
        publish: (messages) =>
          Effect.forEach(
            Map.groupBy(messages, ({ subject }) => subject).values(),
            (of) => Effect.forEach(of, publish, { discard: true }),
            { concurrency: 64, discard: true }
          ),
        read
      })
    })
  )

const nanosOf = (input: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(input)) * 1e6

const asked = <A>(operation: string, ask: () => Promise<A>): Effect.Effect<A, BrokerError> =>
  Effect.tryPromise({ try: ask, catch: (cause) => new BrokerError({ operation, cause }) })

const messageOf = (message: JsMsg): ReadMessage => {
  const headers: Record<string, string> = {}
  for (const [name, [value = ""]] of message.headers ?? []) headers[name] = value
  const { "Nats-Msg-Id": id = `${message.info.stream} ${message.seq}`, ...others } = headers
  return { id, subject: message.subject, headers: others, body: message.string(), position: String(message.seq) }
}
