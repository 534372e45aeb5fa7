/** `Postgres.wakeups` and `Postgres.wake`: `LISTEN` and `NOTIFY` as hints. */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { Clock } from "effect/Clock"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as RcRef from "effect/RcRef"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { WakeUpPolicies } from "../PostgresPolicies.ts"
import * as Pg from "../PostgresTypes.ts"

export interface WakeUpsOptions {
  readonly sql: PgClient.PgClient
  /** Of the connection that listens. */
  readonly connection: PgConnection.Config
  readonly policies: WakeUpPolicies
}

export const make = Effect.fnUntraced(function*(options: WakeUpsOptions) {
  const { policies } = options
  const id = yield* Effect.provide(
    Effect.flatMap(SecureRandom.SecureRandom, (random) => random.uuidV4()),
    SecureRandom.layerWebCrypto
  )
  const origin = `${separator}${id}`
  // One connection for all channels, from the first subscriber to the last. Every subscriber of a broken one lets go of
  // it before it tries again, so the next to come gets a new one.
  const connection = yield* RcRef.make({
    acquire: Effect.flatMap(PgConnection.make(options.connection), (session) => session.pin)
  })

  const listen = (channel: string, hears: (payload: string) => boolean = () => true) =>
    Stream.unwrap(Effect.gen(function*() {
      // Let go of in the background: a farewell to a server that does not answer would hold the subscriber up for ever.
      const scope = yield* Effect.acquireRelease(
        Scope.make(),
        (scope, exit) => Effect.forkDetach(Scope.close(scope, exit))
      )
      const notifications = yield* Effect.flatMap(RcRef.get(connection), (session) => session.listen(channel)).pipe(
        Scope.provide(scope)
      )
      return Stream.fromQueue(notifications).pipe(
        Stream.filter(({ payload }) => hears(payload)),
        Stream.map(({ payload }) => payload.split(separator, 1)[0]!),
        (heard) => Stream.concat(Stream.succeed(""), heard)
      )
    })).pipe(
      Stream.tapError((error) => Effect.logDebug("Wake-ups are interrupted, reconnecting", { channel, error })),
      // Starts with the shortest wait again after a success.
      Stream.retry(policies.reconnect),
      Stream.orDie,
      // Notifications are drained at once, however slow the subscriber is; it has at most one to come.
      Stream.buffer({ capacity: 1, strategy: "sliding" })
    )

  // Who wants it hears of what is said in this process without the way through the server.
  const here = new Map<string, Set<Queue.Queue<string>>>()
  const heardHere = (channel: string) =>
    Stream.unwrap(Effect.map(
      Effect.acquireRelease(
        Effect.map(Queue.sliding<string>(1), (queue) => {
          const queues = here.get(channel) ?? new Set()
          here.set(channel, queues.add(queue))
          return queue
        }),
        (queue) =>
          Effect.sync(() => {
            const queues = here.get(channel)
            queues?.delete(queue)
            if (queues?.size === 0) here.delete(channel)
          })
      ),
      Stream.fromQueue
    ))

  const sayHere = (channel: string, text: string) => {
    for (const queue of here.get(channel) ?? []) Queue.offerUnsafe(queue, text)
  }

  const clock = yield* Clock
  let notifiedAt: bigint | undefined
  const pending = new Map<string, string>()
  const signal = yield* Queue.sliding<void>(1)
  let { pause } = policies
  /** While there is no end of hints, they wait for the next commit that notifies itself: one of their own costs another commit. */
  const restUntilDue = Effect.suspend(() => {
    if (notifiedAt === undefined || pause < policies.longestPause || pending.size === 0) return Effect.succeed(false)
    const since = Number(clock.monotonicTimeNanosUnsafe() - notifiedAt) / 1e6
    const rest = policies.commitPause + policies.pause - since
    return rest > 0 ? Effect.as(Effect.sleep(rest), true) : Effect.succeed(false)
  })
  yield* Queue.take(signal).pipe(
    Effect.andThen(Effect.repeat(restUntilDue, { while: (isEarly) => isEarly })),
    Effect.andThen(Effect.suspend(() => {
      // A commit has taken along what there was.
      if (pending.size === 0) return Effect.void
      const channels = Array.from(pending.keys())
      const texts = Array.from(pending.values())
      pending.clear()
      // Autocommits; takes the lock that orders notifications for the length of this commit, which waits for no disk: what is
      // hinted at is there already.
      return options.sql`
        select pg_notify(channel, text)
        from (select set_config('synchronous_commit', 'off', true)) as commit(mode), unnest(${
        Pg.textArray(channels)
      }, ${Pg.textArray(texts)}) as n(channel, text)
        where commit.mode is not null`.pipe(
        Effect.catchCause((cause) => Effect.logDebug("A wake-up was not sent", cause)),
        Effect.andThen(Effect.suspend(() => Effect.sleep(pause))),
        Effect.andThen(Effect.sync(() => {
          pause = pending.size === 0 ? policies.pause : Math.min(2 * pause, policies.longestPause)
        }))
      )
    })),
    Effect.forever,
    Effect.withTracerEnabled(false),
    Effect.forkScoped
  )

  return {
    wakeups: (channel: string, { here = false } = {}): Stream.Stream<string> => {
      const problem = problemOf(channel)
      if (problem !== undefined) return Stream.die(problem)
      return here
        ? Stream.merge(listen(channel, (payload) => !payload.endsWith(origin)), heardHere(channel)).pipe(
          Stream.buffer({ capacity: 1, strategy: "sliding" })
        )
        : listen(channel)
    },

    wake: (channel: string, text = ""): Effect.Effect<void> =>
      Effect.suspend(() => {
        const problem = problemOf(channel)
        if (problem !== undefined) return Effect.die(problem)
        pending.set(channel, here.has(channel) ? text + origin : text)
        Queue.offerUnsafe(signal, undefined)
        sayHere(channel, text)
        return Effect.void
      }),

    origin: Effect.succeed(origin),
    wakeHere: (channel: string): Effect.Effect<void> => Effect.sync(() => sayHere(channel, "")),

    mayNotify: (...channels: ReadonlyArray<string>): Effect.Effect<boolean> =>
      Effect.sync(() => {
        const now = clock.monotonicTimeNanosUnsafe()
        const isSoon = notifiedAt !== undefined && Number(now - notifiedAt) < policies.commitPause * 1e6
        // What is pending for others is sent soon, by a statement that takes these along.
        if (isSoon || Array.from(pending.keys()).some((channel) => !channels.includes(channel))) return false
        pending.clear()
        notifiedAt = now
        return true
      })
  }
})

/** Stands between the text of a notification and the process that it is of. */
const separator = "\u0001"

/** PostgreSQL keeps 63 bytes of a channel's name; a longer one would be another. */
const problemOf = (channel: string): Error | undefined =>
  channel !== "" && new TextEncoder().encode(channel).length <= 63
    ? undefined
    : new Error(`A channel name has 1 to 63 bytes: "${channel}"`)
