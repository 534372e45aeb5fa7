/**
 * NATS JetStream as a broker of Strata.
 *
 * @since 0.1.0
 */
export * as BrokerNats from "./BrokerNats.ts"
