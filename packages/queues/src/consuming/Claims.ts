/**
 * Claims, and what is said of what was claimed.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import type { SqlError } from "effect/sql/SqlError"
import type { Failure, Headers } from "../Message.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * A message as it was claimed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Claimed {
  readonly token: string
  readonly claimedAt: Timestamp.Timestamp
  readonly id: bigint
  readonly sentAt: Timestamp.Timestamp
  readonly firstAt: Timestamp.Timestamp
  readonly priority: number
  readonly attempts: number
  readonly crashes: number
  readonly tenant: string
  readonly type: string
  readonly key: string | null
  readonly uniqueKey: string | null
  readonly correlationId: string | null
  readonly causationId: string | null
  readonly traceparent: string | null
  readonly headers: Headers | null
  readonly data: unknown
  readonly bytes: Uint8Array | null
  /** The place of the payload: see `StoredPayload`. One that is apart is there after `StoredPayload.fetch`. */
  readonly storedAt: string | null
  readonly failures: ReadonlyArray<Failure> | null
  /** Bytes of the payload, in queues of which some are large. */
  readonly size: number | null
}

/**
 * What to claim.
 *
 * @category options
 * @since 0.1.0
 */
export interface Wish {
  readonly queue: number
  readonly worker: string
  readonly lease: Duration.Duration
  readonly limit: number
  /** Of those whose lease ran out before. */
  readonly suspects: number
  /** Ids below which nothing is left, for the priorities from 10 to 0. */
  readonly above: ReadonlyArray<bigint>
  /** As `HeaderFilter.toJsonPath` writes it. */
  readonly filter: string | undefined
  /** Bytes at most, if it is more than one message. */
  readonly bytes: number
}

/**
 * What became of the messages of a lease.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settlement {
  readonly done: ReadonlyArray<bigint>
  readonly released: ReadonlyArray<bigint>
  readonly retried: ReadonlyArray<Retried>
  readonly dead: ReadonlyArray<Dead>
}

/**
 * To be tried again.
 *
 * @category models
 * @since 0.1.0
 */
export interface Retried {
  readonly id: bigint
  readonly after: Duration.Duration
  /** Undefined: it is only put off, and the attempt does not count. */
  readonly failure: Omit<Failure, "at"> | undefined
}

/**
 * Given up.
 *
 * @category models
 * @since 0.1.0
 */
export interface Dead {
  readonly id: bigint
  readonly reason: string
  readonly fingerprint: string
  readonly failure: Omit<Failure, "at">
}

/**
 * Nothing is known to be gone.
 *
 * @category constants
 * @since 0.1.0
 */
export const fromTheBeginning: ReadonlyArray<bigint> = Array.from({ length: 11 }, () => 0n)

// --------------------------------------------------------------------------------------------------- constructors

/**
 * The statements of consumers.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ rows }: Postgres["Service"]) => ({
  /** Messages, the most urgent first. See take_messages. */
  claim: (wish: Wish): Effect.Effect<ReadonlyArray<Claimed>, SqlError> =>
    Effect.map(
      rows(claim, [
        Pg.int(wish.queue),
        Pg.text(wish.worker),
        Pg.double(Duration.toSeconds(wish.lease)),
        Pg.int(wish.limit),
        Pg.int(wish.suspects),
        Pg.bigintArray(wish.above),
        Pg.text(wish.filter ?? null),
        Pg.int(wish.bytes)
      ]),
      claimedOf
    ),

  /** How long it is until a message that is for later may be claimed; undefined when there is none. */
  nextDue: (queue: number): Effect.Effect<Duration.Duration | undefined, SqlError> =>
    Effect.map(rows("select next_due($1)", [Pg.int(queue)]), ([row]) => {
      const seconds: number | null = cast(row?.[0] ?? null)
      return seconds === null ? undefined : Duration.seconds(Math.max(0, seconds))
    }),

  /**
   * Settles whole leases of which all is done, and nothing is stored elsewhere. Gives those that were still there. `keep`: the
   * queue keeps a history.
   */
  settleLeases: (tokens: ReadonlyArray<string>, keep: boolean): Effect.Effect<ReadonlySet<string>, SqlError> =>
    Effect.map(
      rows(keep ? "select settle_leases_kept($1)" : "select settle_leases($1)", [Pg.uuidArray(tokens)]),
      tokensOf
    ),

  /** Settles messages of a lease. False when it is over. */
  settle: (token: string, settlement: Settlement): Effect.Effect<boolean, SqlError> =>
    Effect.map(rows(settle, settlementOf(token, settlement)), isTrue),

  /** Settles one message. False when its lease is over, or it was settled before. */
  settleOne: (token: string, id: bigint, settlement: Settlement): Effect.Effect<boolean, SqlError> =>
    Effect.map(rows(settleOne, [...settlementOf(token, settlement), Pg.bigint(id)]), isTrue),

  /** Renews leases. Gives those that are still there. */
  extend: (tokens: ReadonlyArray<string>, lease: Duration.Duration): Effect.Effect<ReadonlySet<string>, SqlError> =>
    Effect.map(
      rows("select extend_leases($1, $2)", [Pg.uuidArray(tokens), Pg.double(Duration.toSeconds(lease))]),
      tokensOf
    )
})

const tokensOf = (found: ReadonlyArray<ReadonlyArray<unknown>>): ReadonlySet<string> =>
  new Set(found.map(([token]): string => cast(token)))

const isTrue = (found: ReadonlyArray<ReadonlyArray<unknown>>): boolean => found[0]?.[0] === true

const claim = `
  select
    token, claimed_at, id, sent_at, first_at, priority, attempts, crashes, tenant, type, key, unique_key, correlation_id, causation_id,
    traceparent, headers, data, bytes, stored_at, failures, size
  from take_messages($1, $2, $3, $4, $5, $6, $7::text::jsonpath, $8)`

const settled = "settle_messages($1, $2, $3, $4, $5, $6::text[]::jsonb[], $7, $8, $9, $10::text[]::jsonb[])"

const settle = `select ${settled}`

const settleOne = `select case when lease_has($1, $11) then ${settled} else false end`

const settlementOf = (token: string, { dead, done, released, retried }: Settlement) => [
  Pg.uuid(token),
  Pg.bigintArray(done),
  Pg.bigintArray(released),
  Pg.bigintArray(retried.map(({ id }) => id)),
  Pg.doubleArray(retried.map(({ after }) => Duration.toSeconds(after))),
  Pg.textArray(retried.map(({ failure }) => failure === undefined ? null : JSON.stringify(failure))),
  Pg.bigintArray(dead.map(({ id }) => id)),
  Pg.textArray(dead.map(({ reason }) => reason)),
  Pg.textArray(dead.map(({ fingerprint }) => fingerprint)),
  Pg.textArray(dead.map(({ failure }) => JSON.stringify(failure)))
]

/** What is the same in all messages of a claim stands in the first row. */
const claimedOf = (found: ReadonlyArray<ReadonlyArray<unknown>>): ReadonlyArray<Claimed> => {
  let first: Claimed | undefined
  return found.map((row): Claimed => {
    const [
      token,
      claimedAt,
      id,
      sentAt,
      firstAt,
      priority,
      attempts,
      crashes,
      tenant,
      type,
      key,
      uniqueKey,
      correlationId,
      causationId,
      traceparent,
      headers,
      data,
      bytes,
      storedAt,
      failures,
      size
    ]: ClaimedRow = cast(row)
    const at = claimedAt ?? first!.claimedAt
    const claimed = {
      token: token ?? first!.token,
      claimedAt: at,
      id,
      sentAt,
      firstAt: firstAt ?? at,
      priority,
      attempts,
      crashes,
      tenant: tenant ?? first!.tenant,
      type: type ?? first!.type,
      key,
      uniqueKey,
      correlationId,
      causationId,
      traceparent,
      headers,
      data,
      bytes,
      storedAt,
      failures,
      size
    }
    first ??= claimed
    return claimed
  })
}

type ClaimedRow = readonly [
  string | null,
  Timestamp.Timestamp | null,
  bigint,
  Timestamp.Timestamp,
  Timestamp.Timestamp | null,
  number,
  number,
  number,
  string | null,
  string | null,
  string | null,
  string | null,
  string | null,
  string | null,
  string | null,
  Headers | null,
  unknown,
  Uint8Array | null,
  string | null,
  ReadonlyArray<Failure> | null,
  number | null
]
