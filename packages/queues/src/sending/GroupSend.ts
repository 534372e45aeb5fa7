/**
 * Group send: messages that are sent while others commit are written together by the next statement.
 *
 * **Details**
 *
 * There is no timer: who finds nobody writing is written at once, and load makes the batches. Two batches may be on their
 * way, so that one is made while the other commits. A call that is refused for what it holds fails alone.
 *
 * A statement whose connection broke may have been done. It is not sent again, for its messages could be there twice: the callers are
 * told, and may repeat under a unique key. What certainly was not done is sent again by the policy.
 *
 * @since 0.1.0
 */
import * as Retrying from "@strata/postgres/Retrying"
import * as SqlState from "@strata/postgres/SqlState"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as PreparedMessage from "./PreparedMessage.ts"
import type { Outcome } from "./SendStatement.ts"

/** The messages of one caller. */
export type Call = ReadonlyArray<PreparedMessage.PreparedMessage>

interface Waiting {
  readonly call: Call
  /** Those that the statement notifies. */
  readonly channels: ReadonlyArray<string>
  readonly answer: (exit: Exit.Exit<ReadonlyArray<Outcome>, SqlError>) => void
  /** Its caller went away before it was sent. */
  abandoned: boolean
}

/** Bounds of a batch, and of the calls that wait for one. */
const bounds = { waiting: 16_384, messages: 4096, size: 8_388_608 } as const

/** Batches on their way. */
const most = 2

/**
 * Sends calls together, until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options: {
  readonly write: (
    calls: ReadonlyArray<Call>,
    channels: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<Outcome>, SqlError>
  readonly retry: Schedule.Schedule<unknown>
  readonly full: (call: Call, channels: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Outcome>, SqlError>
}): Effect.fn.Return<
  (call: Call, channels: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Outcome>, SqlError>,
  never,
  Scope.Scope
> {
  const waiting: Array<Waiting> = []
  let writing = 0
  const again = { schedule: options.retry, while: (error: SqlError) => SqlState.classify(error) === "retryable" }
  const send = (batch: ReadonlyArray<Waiting>) =>
    Retrying.retry(options.write(batch.map(({ call }) => call), batch.flatMap(({ channels }) => channels)), again)

  const commit = (batch: ReadonlyArray<Waiting>): Effect.Effect<void> =>
    Effect.matchEffect(send(batch), {
      onSuccess: (outcomes) =>
        Effect.sync(() => {
          let at = 0
          for (const { answer, call } of batch) answer(Exit.succeed(outcomes.slice(at, at += call.length)))
        }),
      onFailure: (error) => {
        if (batch.length > 1 && SqlState.classify(error) === "permanent") {
          return Effect.forEach(batch, (one) => commit([one]), { discard: true })
        }
        return Effect.sync(() => {
          for (const { answer } of batch) answer(Exit.fail(error))
        })
      }
    })

  const take = (): ReadonlyArray<Waiting> => {
    let messages = 0
    let size = 0
    let count = 0
    for (const { call } of waiting) {
      messages += call.length
      for (const message of call) size += PreparedMessage.sizeOf(message)
      if (count > 0 && (messages > bounds.messages || size > bounds.size)) break
      count++
    }
    return waiting.splice(0, count).filter(({ abandoned }) => !abandoned)
  }

  const work: Effect.Effect<void> = Effect.suspend(() => {
    const batch = take()
    if (batch.length > 0) return Effect.andThen(commit(batch), work)
    if (waiting.length > 0) return work
    writing--
    return Effect.void
  })

  // A batch is many callers', so it is sent again whatever is above one of them.
  const fork = yield* Retrying.outermost(FiberSet.makeRuntime<never, void, never>())

  return (call, channels) =>
    Effect.suspend(() => {
      if (waiting.length >= bounds.waiting) return options.full(call, channels)
      return Effect.callback<ReadonlyArray<Outcome>, SqlError>((answer) => {
        const own: Waiting = { call, channels, answer, abandoned: false }
        waiting.push(own)
        if (writing < most) {
          writing++
          fork(work)
        }
        return Effect.sync(() => {
          own.abandoned = true
        })
      })
    })
})
