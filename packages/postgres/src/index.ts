export * as Postgres from "./Postgres.ts"
export * as Timestamp from "./Timestamp.ts"
export * as TransactionError from "./TransactionError.ts"
