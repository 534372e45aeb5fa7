/**
 * Publishes the messages of topics to a broker.
 *
 * **Details**
 *
 * It is a consumer group like any other: its position moves when the broker has confirmed, so whatever ends in between is published again,
 * under the same ids, by which the broker knows it. Messages of one key come to the broker in their order where they have one subject.
 *
 * **Example** (Orders for everybody who listens to NATS)
 *
 * ```ts
 * import * as BrokerRelay from "@strata/queues/brokers/BrokerRelay"
 * import type { Topic } from "@strata/queues/topics/Topic"
 *
 * declare const Orders: Topic<{ readonly order: number }>
 *
 * const relay = BrokerRelay.layer({
 *   group: "orders to nats",
 *   topic: Orders,
 *   subject: ({ key }) => `orders.${key ?? "none"}`
 * })
 * ```
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Handling from "../consuming/Handling.ts"
import type { QueueError } from "../QueueError.ts"
import type { Queues } from "../Queues.ts"
import * as ConsumerGroup from "../topics/ConsumerGroup.ts"
import type { StartFrom, Topic, TopicMessage } from "../topics/Topic.ts"
import type { TopicError } from "../topics/TopicError.ts"
import type { Topics } from "../topics/Topics.ts"
import { Broker, BrokerError, type BrokerMessage } from "./Broker.ts"

/**
 * What is relayed, and where to.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<A> {
  /** The name of the consumer group. */
  readonly group: string
  readonly topic: Topic<A>
  readonly subject: (message: TopicMessage<A>) => string
  /** Where it begins. Default: the beginning. */
  readonly startFrom?: StartFrom | undefined
}

/**
 * Relays as long as the layer is there. Any number of processes may.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <A>(
  { group, startFrom = "beginning", subject, topic }: Options<A>
): Layer.Layer<never, TopicError | QueueError, Broker | Topics | Queues | Postgres> =>
  Layer.unwrap(Effect.contextWith((context: Context.Context<Broker>) =>
    Effect.succeed(ConsumerGroup.layer({
      name: group,
      topics: [topic],
      startFrom,
      delivery: "atLeastOnce",
      isOutage: (error) => error instanceof BrokerError,
      handler: (messages) =>
        Effect.flatMap(
          Effect.forEach(messages, (message) => Effect.fromResult(brokerMessageOf(topic, subject, message))),
          Context.get(context, Broker).publish
        )
    }))
  ))

const brokerMessageOf = <A>(
  topic: Topic<A>,
  subject: Options<A>["subject"],
  message: TopicMessage<A>
): Result.Result<BrokerMessage, Handling.Reject> =>
  Result.mapBoth(topic.encode(message.payload), {
    onFailure: ({ message }) => new Handling.Reject({ reason: message }),
    onSuccess: (payload) => ({
      id: message.id,
      subject: subject(message),
      headers: headersOf(message),
      body: JSON.stringify(payload)
    })
  })

/** Names that a broker keeps, beside the message's own headers. */
const headersOf = <A>(
  { causationId, correlationId, headers, key, tenant, traceparent, type }: TopicMessage<A>
): BrokerMessage["headers"] => {
  const own = {
    "strata-type": type,
    "strata-tenant": tenant,
    "strata-key": key,
    "strata-correlation-id": correlationId,
    "strata-causation-id": causationId,
    traceparent
  }
  return Object.fromEntries(
    [...Object.entries(headers), ...Object.entries(own)].flatMap(([name, value]) =>
      value === undefined ? [] : [[name, String(value)]]
    )
  )
}
