/**
 * What a circuit is at a moment, what may happen to it, and what it tells: plain data that can be written as JSON.
 *
 * **Details**
 *
 * Times are milliseconds of one clock that does not go back, whatever its origin; durations are milliseconds.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as CircuitWindow from "./CircuitWindow.ts"

// ---------------------------------------------------------------------------------------------------------- state

/**
 * Calls run, and their outcomes are counted.
 *
 * @category models
 * @since 0.1.0
 */
export const Closed = Schema.TaggedStruct("Closed", {
  window: CircuitWindow.Window
})
export interface Closed extends Schema.Schema.Type<typeof Closed> {}

/**
 * No call runs before `until`.
 *
 * @category models
 * @since 0.1.0
 */
export const Open = Schema.TaggedStruct("Open", {
  until: Schema.Finite
})
export interface Open extends Schema.Schema.Type<typeof Open> {}

/**
 * Some calls run, as probes. `credit` is what error diffusion has saved for the next one, up to 1.
 *
 * @category models
 * @since 0.1.0
 */
export const HalfOpen = Schema.TaggedStruct("HalfOpen", {
  judgeAt: Schema.Finite,
  credit: Schema.Finite,
  probes: Schema.Array(Schema.Struct({ id: Schema.Finite, leaseUntil: Schema.Finite })),
  results: CircuitWindow.Counts
})
export interface HalfOpen extends Schema.Schema.Type<typeof HalfOpen> {}

/**
 * No call runs, whatever the time.
 *
 * @category models
 * @since 0.1.0
 */
export const ForcedOpen = Schema.TaggedStruct("ForcedOpen", {
  actor: Schema.String
})
export interface ForcedOpen extends Schema.Schema.Type<typeof ForcedOpen> {}

/**
 * Calls run, and nothing is counted.
 *
 * @category models
 * @since 0.1.0
 */
export const Disabled = Schema.TaggedStruct("Disabled", {
  actor: Schema.String
})
export interface Disabled extends Schema.Schema.Type<typeof Disabled> {}

/**
 * Calls run, and what would open the circuit is only told: not again before `quietUntil`.
 *
 * @category models
 * @since 0.1.0
 */
export const MetricsOnly = Schema.TaggedStruct("MetricsOnly", {
  actor: Schema.String,
  window: CircuitWindow.Window,
  quietUntil: Schema.Finite
})
export interface MetricsOnly extends Schema.Schema.Type<typeof MetricsOnly> {}

/**
 * What a circuit does with calls.
 *
 * @category models
 * @since 0.1.0
 */
export const Phase = Schema.Union([Closed, Open, HalfOpen, ForcedOpen, Disabled, MetricsOnly])
export type Phase = typeof Phase.Type

/**
 * One circuit. `openings` counts those since it was last closed; `late` and `rejected` count calls since it was made or reset;
 * `probe` numbers the probes of all generations.
 *
 * @category models
 * @since 0.1.0
 */
export const Circuit = Schema.Struct({
  generation: Schema.Finite,
  openings: Schema.Finite,
  late: Schema.Finite,
  rejected: Schema.Finite,
  probe: Schema.Finite,
  latency: CircuitWindow.Latency,
  phase: Phase
})
export interface Circuit extends Schema.Schema.Type<typeof Circuit> {}

/**
 * A circuit nobody has used.
 *
 * @category constructors
 * @since 0.1.0
 */
export const initial: Circuit = {
  generation: 1,
  openings: 0,
  late: 0,
  rejected: 0,
  probe: 0,
  latency: CircuitWindow.unknown,
  phase: { _tag: "Closed", window: CircuitWindow.empty }
}

// --------------------------------------------------------------------------------------------- events and decisions

/**
 * How a call ended, and which admission it had. `retryAfter` is what the callee asked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ended {
  readonly generation: number
  readonly probe: number | undefined
  readonly outcome: "Success" | "Failure" | "TimedOut" | "Ignored"
  readonly duration: number
  readonly retryAfter?: number | undefined
}

/**
 * What somebody may tell a circuit to do. `Reset` closes it with empty counters, from any state.
 *
 * @category models
 * @since 0.1.0
 */
export interface Command {
  readonly _tag: "ForceOpen" | "Disable" | "MetricsOnly" | "Reset"
  readonly actor: string
}

/**
 * Whether a call may run. `probe` is there for one that decides about the circuit; `retryAfter` for one that may not run.
 *
 * @category models
 * @since 0.1.0
 */
export type Decision =
  | { readonly _tag: "Admitted"; readonly generation: number; readonly probe: number | undefined }
  | { readonly _tag: "Rejected"; readonly phase: "Open" | "HalfOpen"; readonly retryAfter: number }
  | { readonly _tag: "Rejected"; readonly phase: "ForcedOpen"; readonly retryAfter: number; readonly actor: string }

/**
 * What a rate was exceeded by.
 *
 * @category models
 * @since 0.1.0
 */
export type Excess = "failureRate" | "timeoutRate" | "slowCallRate"

/**
 * Why the phase changed.
 *
 * @category models
 * @since 0.1.0
 */
export type Reason =
  | Excess
  | "openTimeOver"
  | "probesSucceeded"
  | "probesFailed"
  | "probesSlow"
  | "tooFewProbes"
  | "command"

/**
 * The phase changed. `counts` are those it was decided on. On an opening, `attempt` numbers the openings since the circuit was
 * last closed, from 0, and `openFor` says how long it will last. `actor` is there when the reason is a command.
 *
 * @category models
 * @since 0.1.0
 */
export interface Transition {
  readonly _tag: "Transition"
  readonly from: Phase["_tag"]
  readonly to: Phase["_tag"]
  readonly reason: Reason
  readonly generation: number
  readonly counts: CircuitWindow.Counts
  readonly attempt: number
  readonly openFor?: number | undefined
  readonly actor?: string | undefined
}

/**
 * A rate was reached: once for each opening, and in `MetricsOnly` once a window.
 *
 * @category models
 * @since 0.1.0
 */
export interface ThresholdExceeded {
  readonly _tag: "ThresholdExceeded"
  readonly reason: Excess
  readonly counts: CircuitWindow.Counts
}

/**
 * What is told of a circuit.
 *
 * @category models
 * @since 0.1.0
 */
export type Event = Transition | ThresholdExceeded

/**
 * What an event made of a circuit.
 *
 * @category models
 * @since 0.1.0
 */
export interface Step<A> {
  readonly circuit: Circuit
  readonly decision: A
  readonly events: ReadonlyArray<Event>
}

/**
 * Shares of the calls in the window or among the probes; undefined while there are too few calls to judge by.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rates {
  readonly calls: number
  readonly failureRate: number | undefined
  readonly timeoutRate: number | undefined
  readonly slowCallRate: number | undefined
}
