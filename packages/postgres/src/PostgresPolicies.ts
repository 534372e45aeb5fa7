/**
 * Every wait, limit and number of tries of this package, in one place.
 *
 * **When to use**
 *
 * Look here for how long something takes at most. Use the options of `Postgres.layer` and `EmbeddedPostgres.layer` to
 * set what an application sets; provide this reference for the rest, or for the defaults of a whole program.
 *
 * **Example** (A machine on which a server takes its time to stop)
 *
 * ```ts
 * import { defaults, PostgresPolicies } from "@strata/postgres/PostgresPolicies"
 * import * as Duration from "effect/Duration"
 * import * as Layer from "effect/Layer"
 *
 * const Patient = Layer.succeed(PostgresPolicies, {
 *   ...defaults,
 *   embedded: { ...defaults.embedded, stopTimeout: Duration.minutes(1) }
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Schedule from "effect/Schedule"

/**
 * Of the pool and its sessions. What is also an option of `Postgres.layer` is that option's default, and described there.
 *
 * @category models
 * @since 0.1.0
 */
export interface SessionPolicies {
  readonly acquireTimeout: Duration.Duration
  readonly connectTimeout: Duration.Duration
  readonly connectionTTL: Duration.Duration
  readonly statementTimeout: Duration.Duration
  readonly lockTimeout: Duration.Duration
  readonly idleInTransactionTimeout: Duration.Duration
  readonly startupTimeout: Duration.Duration
  /** How much longer than a statement may take a socket may be silent. */
  readonly socketMargin: Duration.Duration
  /** How long an unused connection is kept where silence of a socket has no limit. */
  readonly idleTimeout: Duration.Duration
  /** Time between the keepalive probes of connections that are silent for long. */
  readonly keepAlive: Duration.Duration
  /** Waits for a server that is not there yet, within the startup timeout. */
  readonly starting: (startupTimeout: Duration.Duration) => Schedule.Schedule<unknown>
  /** Time between two warnings that something is still waited for. */
  readonly betweenWarnings: Duration.Duration
}

/**
 * Of `Postgres.transact`.
 *
 * @category models
 * @since 0.1.0
 */
export interface TransactionPolicies {
  /** How often a body is run at most: the default of the option `transactionAttempts`. */
  readonly attempts: number
  /** Waits before a body is run again. */
  readonly backoff: Schedule.Schedule<unknown>
}

/**
 * Of `Postgres.wakeups` and `Postgres.wake`.
 *
 * @category models
 * @since 0.1.0
 */
export interface WakeUpPolicies {
  /** Waits before the connection that listens is made again; without end, since nobody else would. */
  readonly reconnect: Schedule.Schedule<unknown>
  /** Least milliseconds between two notifications of one process at first. */
  readonly pause: number
  /** Least milliseconds between two notifications while there is no end of them. */
  readonly longestPause: number
  /**
   * Least milliseconds between two commits of one process that notify themselves. While there is no end of hints, one waits for the next such
   * commit: this long and `pause` at most.
   */
  readonly commitPause: number
}

/**
 * Of `Migrations`.
 *
 * @category models
 * @since 0.1.0
 */
export interface MigrationPolicies {
  /** How often to look whether another process has ended its migrations; without end. */
  readonly lockPoll: Schedule.Schedule<number>
  /** How often a statement that still runs is told of. */
  readonly reportInterval: Duration.Duration
}

/**
 * Of `EmbeddedPostgres`. What is also an option of its layer is that option's default, and described there.
 *
 * @category models
 * @since 0.1.0
 */
export interface EmbeddedPolicies {
  readonly startTimeout: Duration.Duration
  readonly stopTimeout: Duration.Duration
  /** How often to try while another process starts or stops the server, within the start timeout. */
  readonly startPoll: (startTimeout: Duration.Duration) => Schedule.Schedule<unknown>
  /** How long a start that is waited for is no news. */
  readonly startQuiet: Duration.Duration
  /** How often to look whether a server is ready, or gone. */
  readonly processPoll: Schedule.Schedule<unknown>
  /** How often a server that is not ready yet is told of. */
  readonly readyReport: Duration.Duration
  /** How long a server that was made to quit at once is given before it is killed. */
  readonly quitTimeout: Duration.Duration
  /** Waits between tries to serve a directory again; without end, since the process that uses the server has no other. */
  readonly restart: Schedule.Schedule<unknown>
  /** How long a server that ended is no news. */
  readonly restartQuiet: Duration.Duration
  /** Within how long processes that notice the end of a server begin, so that one finds what another started. */
  readonly restartSpread: Duration.Duration
  /** The longest wait for a place at a server: the last user may have it for itself. */
  readonly seatTimeout: Duration.Duration
  /** The longest time to connect and log in for a place. */
  readonly seatConnectTimeout: Duration.Duration
  /** The longest wait for the answer whether anybody else uses a server. */
  readonly lastTimeout: Duration.Duration
}

/**
 * All of them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Policies {
  readonly sessions: SessionPolicies
  readonly transactions: TransactionPolicies
  readonly wakeUps: WakeUpPolicies
  readonly migrations: MigrationPolicies
  readonly embedded: EmbeddedPolicies
}

/** Waits that double, up to the longest one, each ±20 % so that many who wait do not come back together. */
const doubling = (first: Duration.Input, longest: Duration.Input): Schedule.Schedule<Duration.Duration> =>
  Schedule.jittered(Schedule.min([Schedule.exponential(first), Schedule.spaced(longest)]))

/**
 * What holds unless something else is provided.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaults: Policies = {
  sessions: {
    acquireTimeout: Duration.seconds(5),
    connectTimeout: Duration.seconds(3),
    connectionTTL: Duration.minutes(15),
    statementTimeout: Duration.seconds(15),
    lockTimeout: Duration.seconds(3),
    idleInTransactionTimeout: Duration.seconds(15),
    startupTimeout: Duration.seconds(30),
    socketMargin: Duration.seconds(5),
    idleTimeout: Duration.minutes(1),
    keepAlive: Duration.seconds(10),
    starting: (startupTimeout) => Schedule.upTo(doubling("50 millis", "1 second"), { duration: startupTimeout }),
    betweenWarnings: Duration.seconds(5)
  },
  transactions: {
    attempts: 8,
    backoff: doubling("10 millis", "1 second")
  },
  wakeUps: {
    reconnect: doubling("100 millis", "5 seconds"),
    pause: 5,
    longestPause: 20,
    commitPause: 25
  },
  migrations: {
    lockPoll: Schedule.spaced("100 millis"),
    reportInterval: Duration.seconds(15)
  },
  embedded: {
    startTimeout: Duration.minutes(1),
    stopTimeout: Duration.seconds(15),
    startPoll: (startTimeout) => Schedule.upTo(Schedule.spaced("100 millis"), { duration: startTimeout }),
    startQuiet: Duration.seconds(5),
    processPoll: Schedule.spaced("20 millis"),
    readyReport: Duration.seconds(10),
    quitTimeout: Duration.seconds(10),
    restart: doubling("100 millis", "5 seconds"),
    restartQuiet: Duration.seconds(2),
    restartSpread: Duration.millis(200),
    seatTimeout: Duration.seconds(15),
    seatConnectTimeout: Duration.seconds(10),
    lastTimeout: Duration.seconds(5)
  }
}

/**
 * The policies of this fiber.
 *
 * @category references
 * @since 0.1.0
 */
export const PostgresPolicies: Context.Reference<Policies> = Context.Reference<Policies>(
  "@strata/postgres/PostgresPolicies",
  { defaultValue: () => defaults }
)
