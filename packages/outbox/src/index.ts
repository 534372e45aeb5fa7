/**
 * Messages that are published inside a transaction.
 *
 * @since 0.1.0
 */
export * as MessageFields from "./MessageFields.ts"
export * as Outbox from "./Outbox.ts"
export * as OutboxError from "./OutboxError.ts"
export * as OutboxMigrations from "./OutboxMigrations.ts"
export * as PreparedMessage from "./PreparedMessage.ts"
export * as Publication from "./Publication.ts"
export * as PublishStatement from "./PublishStatement.ts"
