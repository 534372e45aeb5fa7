export * as Timestamp from "./Timestamp.ts"
