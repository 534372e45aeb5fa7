/**
 * Messages that were given up: looks at them, sends them again, forgets them.
 *
 * **Details**
 *
 * A dead letter is the whole message, as it was, with why it was given up and what went wrong in every try. Those with one
 * *fingerprint* (the error's name, its text without numbers and ids, the place in the code) have most likely one cause: look
 * at the groups first, mend the cause, and send the group again.
 *
 * A letter is sent again once, whoever asks at the same time: it keeps its id, its priority and its key, and has all its
 * tries.
 *
 * **Example** (What the mended bug had killed)
 *
 * ```ts
 * import * as DeadLetters from "@strata/queues/DeadLetters"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const letters = yield* DeadLetters.DeadLetters
 *   const [worst] = yield* letters.groups({ name: "mails" })
 *   if (worst !== undefined) yield* letters.reprocess({ name: "mails" }, { fingerprint: worst.fingerprint })
 * })
 * ```
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { type Failure, type Headers, MessageId } from "./Message.ts"
import { InvalidMessage, QueueError, unavailable } from "./QueueError.ts"
import { type Policies, QueuePolicies } from "./QueuePolicies.ts"
import { channelOf, Queues } from "./Queues.ts"
import * as Payload from "./sending/Payload.ts"
import type { PreparedPayload } from "./sending/PreparedMessage.ts"
import * as StoredPayload from "./sending/StoredPayload.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * Why a message was given up.
 *
 * - `attempts`: it had all its tries. `time`: no further one fits into the time of the policy.
 * - `permanent`: repeating gives the same. `rejected`: its handler said so. `unreadable`: its payload is not what its queue says.
 * - `expired`: it waited for too long. `dropped`: more urgent ones needed its place.
 *
 * @category models
 * @since 0.1.0
 */
export type Reason = "attempts" | "time" | "permanent" | "rejected" | "unreadable" | "expired" | "dropped"

/**
 * A message that was given up.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetter {
  readonly id: MessageId
  readonly diedAt: Timestamp.Timestamp
  readonly reason: Reason
  readonly fingerprint: string
  /** What ended it. */
  readonly error: Partial<Failure>
  /** The tries before that failed, the oldest first. */
  readonly failures: ReadonlyArray<Failure>
  readonly sentAt: Timestamp.Timestamp
  readonly attempts: number
  readonly type: string
  readonly tenant: string
  readonly priority: number
  readonly key: string | undefined
  readonly correlationId: string | undefined
  readonly headers: Headers
  /** As it is stored: JSON, or bytes; undefined when it is in the `PayloadStore` and cannot be had. */
  readonly payload: unknown
}

/**
 * Letters with one fingerprint.
 *
 * @category models
 * @since 0.1.0
 */
export interface Group {
  readonly fingerprint: string
  readonly count: number
  readonly firstAt: Timestamp.Timestamp
  readonly lastAt: Timestamp.Timestamp
  /** Of the last one. */
  readonly error: Partial<Failure>
}

/**
 * Which letters are meant: those for which all holds that is said. Nothing said: all of the queue.
 *
 * @category models
 * @since 0.1.0
 */
export interface Filter {
  readonly ids?: ReadonlyArray<MessageId> | undefined
  readonly fingerprint?: string | undefined
  readonly reason?: Reason | undefined
  readonly type?: string | undefined
  readonly tenant?: string | undefined
  readonly from?: Timestamp.Timestamp | undefined
  readonly to?: Timestamp.Timestamp | undefined
}

/**
 * What letters are sent again with, instead of what they had. The payload is as it is stored.
 *
 * @category models
 * @since 0.1.0
 */
export interface Edit {
  readonly payload?: unknown
  readonly headers?: Headers | undefined
}

interface Named {
  readonly name: string
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * The dead letters of a database.
 *
 * @category services
 * @since 0.1.0
 */
export class DeadLetters extends Context.Service<DeadLetters, {
  /**
   * The oldest first, at most `limit` (100) of them, after the one named. A page ends early where payloads are large, so go on
   * until one is empty.
   */
  readonly list: (
    queue: Named,
    filter?: Filter,
    page?: { readonly after?: MessageId | undefined; readonly limit?: number | undefined }
  ) => Effect.Effect<ReadonlyArray<DeadLetter>, QueueError>
  /** The largest first. */
  readonly groups: (queue: Named) => Effect.Effect<ReadonlyArray<Group>, QueueError>
  /** Sends letters again, and gives their ids. A dry run only gives them. */
  readonly reprocess: (
    queue: Named,
    filter: Filter,
    options?: { readonly edit?: Edit | undefined; readonly dryRun?: boolean | undefined }
  ) => Effect.Effect<ReadonlyArray<MessageId>, QueueError>
  /** Forgets letters, and tells how many. */
  readonly discard: (queue: Named, filter: Filter) => Effect.Effect<number, QueueError>
}>()("@strata/queues/DeadLetters") {}

/**
 * The dead letters of the database in the context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<DeadLetters, never, Postgres | Queues> = Layer.effect(
  DeadLetters,
  Effect.gen(function*() {
    const { rows, transact, wake } = yield* Postgres
    const queues = yield* Queues
    const policies = yield* QueuePolicies

    const find = Effect.fnUntraced(function*(
      columns: string,
      queue: Named,
      filter: Filter,
      after: bigint,
      limit: number
    ) {
      const { id } = yield* queues.find(queue)
      return yield* Effect.mapError(
        rows(`select ${columns} from find_dead_letters($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) order by id`, [
          Pg.int(id),
          filter.ids === undefined ? Pg.noBigints : Pg.bigintArray(filter.ids),
          Pg.text(filter.fingerprint ?? null),
          Pg.text(filter.reason ?? null),
          Pg.text(filter.type ?? null),
          Pg.text(filter.tenant ?? null),
          Pg.timestamptz(filter.from ?? null),
          Pg.timestamptz(filter.to ?? null),
          Pg.bigint(after),
          Pg.int(limit)
        ]),
        unavailable("look at dead letters")
      )
    })

    /** In steps, so that no statement is large, until none is left. Letters that come meanwhile are left alone. */
    const inSteps = Effect.fnUntraced(function*<A>(
      queue: Named,
      filter: Filter,
      step: (queue: number, ids: ReadonlyArray<bigint>) => Effect.Effect<ReadonlyArray<A>, QueueError>
    ) {
      const { id } = yield* queues.find(queue)
      const results: Array<A> = []
      let after = 0n
      for (;;) {
        const ids = (yield* find("id", queue, filter, after, stepSize)).map(([id]): bigint => cast(id))
        if (ids.length > 0) results.push(...(yield* step(id, ids)))
        if (ids.length < stepSize) return results
        after = ids[ids.length - 1] ?? after
      }
    })

    const write = (queue: number, ids: ReadonlyArray<bigint>, payload: PreparedPayload, headers: Headers | undefined) =>
      Effect.map(
        rows("select reprocess_dead_letters($1, $2, $3::text::json, $4, $5, $6::text::jsonb)", [
          Pg.int(queue),
          Pg.bigintArray(ids),
          Pg.text(payload.data),
          Pg.bytea(payload.bytes),
          Pg.text(payload.storedAt),
          Pg.text(headers === undefined ? null : JSON.stringify(headers))
        ]),
        (found) => found.map(([id]): bigint => cast(id))
      )

    /** Each letter has a stored payload of its own. */
    const writeLarge = (
      queue: number,
      ids: ReadonlyArray<bigint>,
      large: StoredPayload.LargePayload,
      headers: Headers | undefined
    ) =>
      Effect.map(
        Effect.forEach(ids, (id) =>
          transact(Effect.gen(function*() {
            const storedAt = yield* StoredPayload.put(queues.payloads, large)
            const sent = yield* write(queue, [id], { ...Payload.nothing, storedAt }, headers)
            if (sent.length === 0) yield* StoredPayload.remove(queues.payloads, [storedAt])
            return sent
          }))),
        (sent) => sent.flat()
      )

    return DeadLetters.of({
      list: Effect.fnUntraced(function*(queue, filter = {}, { after, limit = 100 } = {}) {
        const found = yield* find(columns, queue, filter, after ?? 0n, limit)
        return yield* Effect.mapError(
          Effect.forEach(StoredPayload.page(found.map(storedOf)), ({ bytes, data, storedAt, ...letter }) =>
            Effect.map(
              StoredPayload.payloadOf(queues.payloads, { bytes, data, storedAt }),
              (payload): DeadLetter => ({ ...letter, payload })
            )),
          unavailable("look at dead letters")
        )
      }),

      groups: Effect.fnUntraced(function*(queue) {
        const { id } = yield* queues.find(queue)
        const found = yield* Effect.mapError(rows(group, [Pg.int(id)]), unavailable("group dead letters"))
        return found.map((row): Group => {
          const [fingerprint, count, firstAt, lastAt, error]: GroupRow = cast(row)
          return { fingerprint, count: Number(count), firstAt, lastAt, error }
        })
      }),

      reprocess: Effect.fnUntraced(function*(queue, filter, { dryRun = false, edit = {} } = {}) {
        const payload = yield* preparedOf(queue.name, edit, policies)
        const send = (queue: number, ids: ReadonlyArray<bigint>) =>
          (payload.large === null
            ? write(queue, ids, payload, edit.headers)
            : writeLarge(queue, ids, payload.large, edit.headers)).pipe(
              Effect.mapError(unavailable("reprocess dead letters")),
              Effect.tap(() => wake(channelOf(queue)))
            )
        const sent = yield* inSteps(queue, filter, (queue, ids) => dryRun ? Effect.succeed(ids) : send(queue, ids))
        return sent.map((id) => MessageId.make(id))
      }),

      discard: Effect.fnUntraced(function*(queue, filter) {
        const counts = yield* inSteps(queue, filter, (id, ids) =>
          Effect.map(
            Effect.mapError(
              rows("select discard_dead_letters($1, $2)", [Pg.int(id), Pg.bigintArray(ids)]),
              unavailable("discard dead letters")
            ),
            ([row]) => [Number(row?.[0] ?? 0)]
          ))
        return counts.reduce((sum, count) => sum + count, 0)
      })
    })
  })
)

const stepSize = 1000

/** The payload of an edit, as it is stored. */
const preparedOf = (queue: string, { payload }: Edit, policies: Policies) => {
  if (payload === undefined) return Effect.succeed(Payload.nothing)
  const prepared = payload instanceof Uint8Array
    ? Payload.encodeBytes(payload, policies)
    : Payload.encodeJson(payload, policies)
  return Effect.fromResult(
    Result.mapError(
      prepared,
      ({ path, problem }) => new QueueError({ reason: new InvalidMessage({ queue, path: `edit.${path}`, problem }) })
    )
  )
}

const columns = `
  id, died_at, reason, fingerprint, error, (message).failures, (message).sent_at, (message).attempts, (message).type,
  (message).tenant, (message).priority, (message).key, (message).correlation_id, (message).headers, (message).data,
  (message).bytes, (message).stored_at`

const group = `
  select
    fingerprint, count(*), min(died_at), max(died_at), (array_agg(error order by id desc))[1]
  from dead_letter
  where queue = $1
  group by fingerprint
  order by count(*) desc, fingerprint`

type GroupRow = readonly [string, bigint, Timestamp.Timestamp, Timestamp.Timestamp, Partial<Failure>]

const storedOf = (row: ReadonlyArray<unknown>): Omit<DeadLetter, "payload"> & StoredPayload.Read => {
  const [
    id,
    diedAt,
    reason,
    fingerprint,
    error,
    failures,
    sentAt,
    attempts,
    type,
    tenant,
    priority,
    key,
    correlationId,
    headers,
    data,
    bytes,
    storedAt
  ]: LetterRow = cast(row)
  return {
    id: MessageId.make(id),
    diedAt,
    reason,
    fingerprint,
    error,
    failures: failures ?? [],
    sentAt,
    attempts,
    type,
    tenant,
    priority,
    key: key ?? undefined,
    correlationId: correlationId ?? undefined,
    headers: headers ?? {},
    data,
    bytes,
    storedAt
  }
}

type LetterRow = readonly [
  bigint,
  Timestamp.Timestamp,
  Reason,
  string,
  Partial<Failure>,
  ReadonlyArray<Failure> | null,
  Timestamp.Timestamp,
  number,
  string,
  string,
  number,
  string | null,
  string | null,
  Headers | null,
  unknown,
  Uint8Array | null,
  string | null
]
