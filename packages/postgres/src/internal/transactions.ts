/** `Postgres.transact`, `inTransaction`, `holdsConnection`, `beforeCommit` and `atCommit`. */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Schedule from "effect/Schedule"
import type { SqlError } from "effect/sql/SqlError"
import type { PostgresMetrics } from "../PostgresMetrics.ts"
import * as Retrying from "../Retrying.ts"
import * as SqlState from "../SqlState.ts"
import {
  CommitRefused,
  ConnectionLost,
  NotCommitted,
  OutcomeUnknown,
  TransactionError,
  Unavailable
} from "../TransactionError.ts"

/** One level of `transact`. What is registered in a savepoint moves to its parent when the savepoint succeeds. */
interface Level {
  readonly work: Array<Effect.Effect<void, TransactionError>>
  /** Told when this level ends without a commit. */
  readonly uncommitted: Array<(outcome: Uncommitted) => void>
  /** The same for all levels of one; undefined in a transaction that `transact` has not opened, where nobody runs the work. */
  readonly transaction: object | undefined
  open: boolean
}

/** How a level ended that was not committed. */
type Uncommitted = "rolled_back" | "unknown"

export interface TransactionsOptions {
  readonly sql: PgClient.PgClient
  readonly attempts: number
  /** Waits before a body is run again. */
  readonly backoff: Schedule.Schedule<unknown>
  readonly metrics: PostgresMetrics
}

export const make = (options: TransactionsOptions) => {
  const { sql } = options
  // Named after the client, so that transactions of two databases can nest.
  const CurrentLevel = Context.Reference<Level | undefined>(`${sql.transactionService.key}/@strata/postgres/Level`, {
    defaultValue: () => undefined
  })

  /** The client hides its own transaction from work after the commit; then there is no level either. */
  const levelOf = (context: Context.Context<never>): Level | undefined =>
    inSqlTransaction(context) ? Context.get(context, CurrentLevel) : undefined
  const inSqlTransaction = (context: Context.Context<never>): boolean =>
    Context.getOrUndefined(context, sql.transactionService) !== undefined

  /**
   * Runs `body` in a transaction or savepoint, and keeps how it ended apart from how the transaction did. `outcomeOf` tells
   * what it means when that failed.
   */
  const run = <A, E, R>(
    level: Level,
    body: Effect.Effect<A, E, R>,
    options: {
      readonly outcomeOf: (cause: Cause.Cause<E | SqlError>, ended: Exit.Exit<A, E> | undefined) => Uncommitted
      readonly succeeded: () => void
    }
  ) => {
    let ended: Exit.Exit<A, E> | undefined
    // A statement that failed has ended the transaction: only who repeats all of it can try again, and nobody within it.
    const watched = Effect.onExit(
      Effect.provideService(Retrying.marked(body), CurrentLevel, level),
      (exit) =>
        Effect.sync(() => {
          ended = exit
          level.open = false
        })
    )
    // On every exit: an interrupted transaction is rolled back, and nobody would handle its cause.
    const settled = Effect.onExit(sql.withTransaction(watched), (exit) =>
      Effect.sync(() => {
        if (exit._tag === "Success") return options.succeeded()
        const outcome = options.outcomeOf(exit.cause, ended)
        for (const tell of level.uncommitted) tell(outcome)
      }))
    return Effect.catchCause(settled, (cause) => Effect.fail({ cause, ended }))
  }

  const outermost = <A, E, R>(body: Effect.Effect<A, E, R>, idempotent: boolean) =>
    Effect.suspend(() => {
      let runs = 0
      const attempt = Effect.suspend(() => {
        const level = newLevel({})
        const once = Effect.mapError(
          run(
            level,
            Effect.tap(body, () => finish(level)),
            { outcomeOf: (cause, ended) => judge(cause, ended, idempotent).outcome, succeeded: () => {} }
          ),
          (failure) => judge(failure.cause, failure.ended, idempotent)
        )
        return runs++ === 0 ? once : Effect.andThen(options.metrics.transaction("retried"), once)
      })
      return attempt.pipe(
        Retrying.retry({
          schedule: options.backoff,
          while: (verdict) => verdict.retry && runs < options.attempts,
          isUnknown: ({ outcome }) => outcome === "unknown"
        }),
        Effect.tap(() => options.metrics.transaction("committed")),
        Effect.catch((verdict) =>
          Effect.andThen(options.metrics.transaction(verdict.outcome), Effect.failCause(verdict.cause))
        )
      )
    })

  const nested = <A, E, R>(parent: Level | undefined, body: Effect.Effect<A, E, R>) =>
    Effect.suspend(() => {
      if (parent?.open === false) return Effect.die(ended("transact"))
      const level = newLevel(parent?.transaction)
      const succeeded = () => {
        parent?.work.push(...level.work)
        parent?.uncommitted.push(...level.uncommitted)
      }
      return run(level, body, { outcomeOf: () => "rolled_back", succeeded }).pipe(
        Effect.catch((failure) => Effect.failCause(judgeSavepoint(failure.cause, failure.ended)))
      )
    })

  /** Work is run by the outermost level, so there has to be one. */
  const register = <A>(operation: string, add: (level: Level) => Effect.Effect<A>): Effect.Effect<A> =>
    Effect.withFiber((fiber) => {
      const level = levelOf(fiber.context)
      if (level?.transaction === undefined) {
        return Effect.die(new Error(`${operation} needs a transaction that transact has opened: call it in transact`))
      }
      return level.open ? add(level) : Effect.die(ended(operation))
    })

  return {
    transact: <A, E, R>(
      body: Effect.Effect<A, E, R>,
      transactOptions?: { readonly idempotent?: boolean | undefined }
    ): Effect.Effect<A, E | TransactionError, R> =>
      Effect.withFiber((fiber) =>
        inSqlTransaction(fiber.context)
          ? nested(levelOf(fiber.context), body)
          : outermost(body, transactOptions?.idempotent ?? false)
      ),

    inTransaction: Effect.withFiber((fiber): Effect.Effect<boolean> =>
      Effect.succeed(levelOf(fiber.context)?.open ?? false)
    ),

    holdsConnection: Effect.withFiber((fiber): Effect.Effect<boolean> =>
      Effect.succeed(inSqlTransaction(fiber.context))
    ),

    beforeCommit: <E>(work: Effect.Effect<void, E>): Effect.Effect<void> =>
      register("beforeCommit", (level) => {
        level.work.push(refusing(work))
        return Effect.void
      }),

    atCommit: <A, E>(work: Effect.Effect<A, E>): Effect.Effect<Effect.Effect<A, NotCommitted>> =>
      register("atCommit", (level) => {
        const outcome = Deferred.makeUnsafe<A, NotCommitted>()
        let committed: Effect.Effect<unknown> = Effect.void
        level.work.push(Effect.map(refusing(work), (given) => {
          committed = Deferred.succeed(outcome, given)
        }))
        level.uncommitted.push((state) => Deferred.doneUnsafe(outcome, Effect.fail(new NotCommitted({ state }))))
        const awaited = Effect.withFiber<A, NotCommitted>((fiber) =>
          !Deferred.isDoneUnsafe(outcome) && levelOf(fiber.context)?.transaction === level.transaction
            ? Effect.fail(new NotCommitted({ state: "open" }))
            : Deferred.await(outcome)
        )
        // Registered here and not by the work: whoever asks for the outcome after the commit has registered later.
        return Effect.as(sql.afterCommit(Effect.suspend(() => Effect.asVoid(committed))), awaited)
      })
  }
}

const newLevel = (transaction: object | undefined): Level => ({ work: [], uncommitted: [], transaction, open: true })

const refusing = <A, E>(work: Effect.Effect<A, E>): Effect.Effect<A, TransactionError> =>
  Effect.mapError(work, (cause) => new TransactionError({ reason: new CommitRefused({ cause }) }))

const ended = (operation: string) =>
  new Error(`${operation}: the transaction has already ended; a fiber that outlives it cannot use it`)

/** Work may register more work. */
const finish = Effect.fnUntraced(function*(level: Level) {
  for (let next = level.work.shift(); next !== undefined; next = level.work.shift()) yield* next
})

/** What becomes of a transaction that did not succeed. */
interface Verdict<E> {
  readonly retry: boolean
  readonly cause: Cause.Cause<E | TransactionError>
  readonly outcome: "rolled_back" | "unknown"
}

const failWith = (reason: TransactionError["reason"]): Cause.Cause<TransactionError> =>
  Cause.fail(new TransactionError({ reason }))

/**
 * Tells what happened by how the body had ended. `ended` is undefined when it was never started, a success when
 * `COMMIT` failed, and otherwise the real reason of the rollback: that the `ROLLBACK` failed too, as it does on a lost
 * connection, changes nothing, for the server then rolls back by itself.
 */
const judge = <A, E>(
  cause: Cause.Cause<E | SqlError>,
  ended: Exit.Exit<A, E> | undefined,
  idempotent: boolean
): Verdict<E> => {
  if (ended?._tag === "Failure") return judgeBody(ended.cause)
  const sqlError = databaseErrorOf(cause)
  if (sqlError === undefined) return { retry: false, cause: withoutFailures(cause), outcome: "rolled_back" }
  if (ended === undefined) {
    return {
      retry: isSafeToRepeat(cause),
      cause: failWith(new Unavailable({ cause: sqlError })),
      outcome: "rolled_back"
    }
  }
  return isCommitRefusal(sqlError)
    ? { retry: isSafeToRepeat(cause), cause: failWith(sqlError), outcome: "rolled_back" }
    : { retry: idempotent, cause: failWith(new OutcomeUnknown({ cause: sqlError })), outcome: "unknown" }
}

/** Typed failures of the body stay as they are; a database error that the body let die is a lost connection or a bug. */
const judgeBody = <E>(cause: Cause.Cause<E>): Verdict<E> => {
  const retry = isSafeToRepeat(cause)
  const lost = retry && !Cause.hasFails(cause) ? databaseErrorOf(cause) : undefined
  return {
    retry,
    cause: lost === undefined ? cause : failWith(new ConnectionLost({ cause: lost })),
    outcome: "rolled_back"
  }
}

/** A savepoint that could not even be rolled back is a defect, so that nothing but the outermost level handles it. */
const judgeSavepoint = <A, E>(
  cause: Cause.Cause<E | SqlError>,
  ended: Exit.Exit<A, E> | undefined
): Cause.Cause<E | TransactionError> => {
  if (ended?._tag === "Failure" && Cause.hasFails(cause)) return ended.cause
  const sqlError = ended === undefined && Cause.hasFails(cause) ? databaseErrorOf(cause) : undefined
  return sqlError === undefined ? withoutFailures(cause) : failWith(sqlError)
}

/**
 * `COMMIT` failed, and the server said so: nothing was committed. A server that shuts down or crashes may say so after
 * the commit became durable; then, as without any answer, nobody knows.
 */
const isCommitRefusal = (error: SqlError): boolean => {
  const code = SqlState.codeOf(error)
  return code === undefined
    ? error.reason.operation === "commit"
    : !code.startsWith("57P") && !code.startsWith("08") && code !== "40003"
}

/** An exhausted pool is not asked again: its limit is a promise to the caller. */
const isSafeToRepeat = <E>(cause: Cause.Cause<E>): boolean =>
  SqlState.isTransient(cause) && !Cause.hasInterrupts(cause) &&
  !cause.reasons.some((reason) => {
    const error = Cause.isFailReason(reason) ? reason.error : undefined
    return SqlState.sqlErrorOf(error)?.reason.operation === "acquire" ||
      (error instanceof TransactionError && error.reason._tag === "OutcomeUnknown")
  })

const databaseErrorOf = <E>(cause: Cause.Cause<E>): SqlError | undefined => {
  for (const reason of cause.reasons) {
    const error = SqlState.sqlErrorOf(
      Cause.isFailReason(reason) ? reason.error : Cause.isDieReason(reason) ? reason.defect : undefined
    )
    if (error !== undefined) return error
  }
  return undefined
}

const withoutFailures = <E>(cause: Cause.Cause<E>): Cause.Cause<never> =>
  Cause.fromReasons(cause.reasons.filter((reason) => !Cause.isFailReason(reason)))
