/**
 * A message broker, as far as messages go out to it and come in from it.
 *
 * **When to use**
 *
 * With `BrokerRelay`, which publishes what a topic has, and `BrokerIntake`, which publishes to the outbox what comes. `layerMemory` is for
 * tests; NATS JetStream is `@strata/nats`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"

// --------------------------------------------------------------------------------------------------------- models

/**
 * A message as a broker has it.
 *
 * @category models
 * @since 0.1.0
 */
export interface BrokerMessage {
  /** The broker takes a message once that comes twice under one id, for as long as it remembers. */
  readonly id: string
  readonly subject: string
  readonly headers: { readonly [name: string]: string }
  readonly body: string
}

/**
 * A message as a broker gives it.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReadMessage extends BrokerMessage {
  /** Where it is, in the words of the broker. */
  readonly position: string
}

/**
 * The broker did not do what it was asked, or nobody knows whether it did.
 *
 * @category errors
 * @since 0.1.0
 */
export class BrokerError extends Schema.TaggedError<BrokerError>()("BrokerError", {
  operation: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `The broker did not answer: ${this.operation}`
  }
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * A message broker.
 *
 * @category services
 * @since 0.1.0
 */
export class Broker extends Context.Service<Broker, {
  /** Publishes messages, those of a subject in their order. Done when the broker has confirmed that it keeps all of them. */
  readonly publish: (messages: ReadonlyArray<BrokerMessage>) => Effect.Effect<void, BrokerError>
  /**
   * Messages of a subject after a position, in order, at most `limit`: at once when there are some, and none after a while when there are
   * not. `*` and `>` in a subject stand for one word and for all the rest, as NATS has it.
   */
  readonly read: (from: {
    readonly subject: string
    /** Undefined for the first that the broker has. */
    readonly after: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<ReadMessage>, BrokerError>
}>()("@strata/queues/Broker") {}

/**
 * A broker in memory.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Broker> = Layer.effect(
  Broker,
  Effect.gen(function*() {
    const log: Array<BrokerMessage> = []
    const known = new Set<string>()
    const arrived = yield* Latch.make()
    const find = (subject: string, after: string | undefined, limit: number) => {
      const fits = matcher(subject)
      const found: Array<ReadMessage> = []
      for (
        let place = after === undefined ? 0 : Number(after) + 1;
        place < log.length && found.length < limit;
        place++
      ) {
        const message = log[place]!
        if (fits(message.subject)) found.push({ ...message, position: String(place) })
      }
      return found
    }
    return Broker.of({
      publish: (messages) =>
        Effect.suspend(() => {
          for (const message of messages) {
            if (known.has(message.id)) continue
            known.add(message.id)
            log.push(message)
          }
          return Effect.andThen(arrived.open, arrived.close)
        }),
      read: ({ after, limit, subject }) =>
        Effect.suspend(() => {
          const found = find(subject, after, limit)
          return found.length > 0
            ? Effect.succeed(found)
            : Effect.map(arrived.await, () => find(subject, after, limit))
        })
    })
  })
)

/** True for the subjects that a pattern names. */
const matcher = (pattern: string): (subject: string) => boolean => {
  const words = pattern.split(".")
  return (subject) => {
    const given = subject.split(".")
    return words.every((word, place) =>
      word === ">" ? given.length > place : given[place] !== undefined && (word === "*" || word === given[place])
    ) && (words[words.length - 1] === ">" || words.length === given.length)
  }
}
