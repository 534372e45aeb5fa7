/**
 * What holds for a queue: how often its messages are tried, how many of them run, how many may wait, and for how long.
 *
 * **When to use**
 *
 * `realtime`, `background` and `batch` are the classes most work belongs to; change what differs with `make`.
 *
 * **Details**
 *
 * Settings are stored with the queue. Other ones are in force as soon as they are stored, in every process: what the database
 * judges (limits, depth) with the next statement, what workers judge within a second.
 *
 * **Example** (Mail, ten at a time, two to each domain)
 *
 * ```ts import.meta.vitest
 * import * as QueueSettings from "@strata/queues/QueueSettings"
 *
 * const mail = QueueSettings.make({ ...QueueSettings.background, maxRunning: 10, maxRunningPerKey: 2 })
 *
 * mail.maxRunningPerKey // => 2
 * ```
 *
 * @since 0.1.0
 */
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

const Count = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000_000 }))

const Lease = Schema.DurationFromString.check(
  Schema.makeFilter((lease: Duration.Duration) =>
    Duration.isFinite(lease) && Duration.toMillis(lease) >= 1000 || "Expected at least a second"
  )
)

const Age = Schema.DurationFromString.check(
  Schema.makeFilter((age: Duration.Duration) =>
    Duration.isFinite(age) && Duration.isPositive(age) || "Expected a finite time above zero"
  )
)

/**
 * So many in each period, and at most `burst` of them at once.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Rate = Schema.Struct({
  count: Count,
  per: Age,
  burst: Count
})
export type Rate = typeof Rate.Type

/**
 * What becomes of a message that is sent to a queue which is full.
 *
 * - `refuse`: the sender is told, and when to come again.
 * - `dropLowest`: the youngest messages of the lowest priority make room, if they are below it; or else it is refused.
 * - `spill`: it is stored for later, and moves up when there is room.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Overflow = Schema.Literals(["refuse", "dropLowest", "spill"])
export type Overflow = typeof Overflow.Type

/**
 * The settings of a queue. Durations are text, as in `"30 seconds"`.
 *
 * - `retry`: how often, and when, a message is tried again. Default: `RetryPolicy.standard`.
 * - `maxAttempts` (that of `retry`): claims after which a message is given up, also when no worker lived to tell.
 * - `lease` (`30 seconds`): how long a worker may be silent before others get what it has.
 * - `timeout` (none): how long one try may take.
 * - `maxRunning` (no limit): messages that run at once, over all workers.
 * - `maxRunningPerKey` (1): of one key. One key, one at a time, is what keeps messages of a key in order.
 * - `rate`, `ratePerKey` (no limit): how often messages may begin.
 * - `maxDepth` (no limit), `overflow` (`refuse`): how many may wait, and what becomes of those above it.
 * - `maxAge` (none): a message that waited longer is given up instead of begun.
 * - `history` (none): how long messages that are done can be looked at: see `Queues.history`.
 * - `keepDead` (for ever): how long dead letters stay.
 *
 * @category schemas
 * @since 0.1.0
 */
export const QueueSettings = Schema.Struct({
  retry: RetryPolicy.RetryPolicy.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(RetryPolicy.standard))),
  maxAttempts: Schema.optionalKey(Count),
  lease: Lease.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(Duration.seconds(30)))),
  timeout: Schema.optionalKey(Age),
  maxRunning: Schema.optionalKey(Count),
  maxRunningPerKey: Schema.optionalKey(Count),
  rate: Schema.optionalKey(Rate),
  ratePerKey: Schema.optionalKey(Rate),
  maxDepth: Schema.optionalKey(Count),
  overflow: Overflow.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed<Overflow>("refuse"))),
  maxAge: Schema.optionalKey(Age),
  history: Schema.optionalKey(Age),
  keepDead: Schema.optionalKey(Age)
})
export type QueueSettings = typeof QueueSettings.Type

/**
 * What may be said of a queue.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = typeof QueueSettings.Encoded

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Settings with the defaults for what is not said. Throws on nonsense, so make them where the program starts.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options?: Options) => QueueSettings = (options = {}) => decode(options)

const decode = Schema.decodeSync(QueueSettings)

/**
 * Somebody waits: 10,000 deep, of no use after 5 seconds, 2 tries.
 *
 * @category constants
 * @since 0.1.0
 */
export const realtime = {
  retry: { attempts: 2, base: "25 millis", total: "1 second" },
  lease: "5 seconds",
  maxDepth: 10_000,
  maxAge: "5 seconds"
} as const satisfies Options

/**
 * Soon: 1,000,000 deep, within an hour, 5 tries.
 *
 * @category constants
 * @since 0.1.0
 */
export const background = {
  retry: { attempts: 5, base: "1 second", total: "1 hour" },
  maxDepth: 1_000_000,
  maxAge: "1 hour"
} as const satisfies Options

/**
 * Some time: 10,000,000 deep, within a day, 3 tries.
 *
 * @category constants
 * @since 0.1.0
 */
export const batch = {
  retry: { attempts: 3, base: "5 minutes", cap: "6 hours", total: "24 hours" },
  lease: "5 minutes",
  maxDepth: 10_000_000,
  maxAge: "24 hours"
} as const satisfies Options

// ----------------------------------------------------------------------------------------------------- converting

/**
 * What the database judges by: numbers, and seconds.
 *
 * @category converting
 * @since 0.1.0
 */
export const toRules = (settings: QueueSettings): { readonly [name: string]: unknown } => {
  const { history, keepDead, maxAttempts, maxDepth, maxRunning, maxRunningPerKey, overflow, rate, ratePerKey, retry } =
    settings
  return present({
    maxAttempts: maxAttempts ?? retry.attempts,
    maxRunning,
    maxRunningPerKey,
    rate: rate === undefined ? undefined : every(rate),
    ratePerKey: ratePerKey === undefined ? undefined : every(ratePerKey),
    maxDepth,
    overflow,
    history: history === undefined ? undefined : Duration.toSeconds(history),
    keepDead: keepDead === undefined ? undefined : Duration.toSeconds(keepDead)
  })
}

const every = ({ burst, count, per }: Rate) => ({ every: Duration.toSeconds(per) / count, burst })

/** What is not there is left out. */
const present = (fields: { readonly [name: string]: unknown }) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
