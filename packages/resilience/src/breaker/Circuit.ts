/**
 * The state machine of a circuit: a state, an event and the time give the next state, a decision and what is to be told.
 *
 * **Details**
 *
 * Pure, so that the same rules serve the store in memory and the one in the database, and every schedule can be replayed.
 *
 * ```text
 * Closed ──(a rate is reached)──▶ Open ──(first call after its time)──▶ HalfOpen ──(probes succeed)──▶ Closed
 *                                   ▲──────────(probes fail)──────────────┘
 * ForcedOpen, Disabled and MetricsOnly are entered and left by command only.
 * ```
 *
 * - Each change of the phase begins a new *generation*. A call carries the generation that admitted it, and its outcome in
 *   another one changes nothing but the counter `late`.
 * - Half-open, calls are let through by error diffusion: the 1st, the 11th, the 21st for a share of 10 %. The first is alone
 *   until its outcome is known, unless all calls are probes; then several may run. An ignored outcome gives its turn back.
 * - A probe holds a lease. When it is over, the probe has failed, and its own outcome is late.
 * - `settle` does what time alone does: leases that are over, and the end of the half-open phase. Each event settles first,
 *   as of the deadlines and not of `now`, so it does not matter when somebody looks.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import type { CircuitPolicy } from "./CircuitPolicy.ts"
import type {
  Circuit,
  Closed,
  Command,
  Decision,
  Ended,
  Excess,
  HalfOpen,
  MetricsOnly,
  Phase,
  Rates,
  Reason,
  Step,
  ThresholdExceeded
} from "./CircuitState.ts"
import * as CircuitState from "./CircuitState.ts"
import * as CircuitWindow from "./CircuitWindow.ts"

// ---------------------------------------------------------------------------------------------------------- rules

/**
 * A policy in numbers: its rates and counts as they are, its durations in milliseconds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rules {
  readonly policy: CircuitPolicy
  readonly window: number
  readonly slowFloor: number
  /** Undefined when what is slow depends on what is normal. */
  readonly slowAfter: number | undefined
  readonly openDuration: number
  readonly maxOpenDuration: number
  readonly maxRetryAfter: number
  readonly maxHalfOpen: number
  readonly halfOpenRetryAfter: number
  readonly probeLease: number
}

/**
 * The rules of a policy.
 *
 * @category constructors
 * @since 0.1.0
 */
export const rules = (policy: CircuitPolicy): Rules => ({
  policy,
  window: Duration.toMillis(policy.window),
  slowFloor: Duration.toMillis(policy.slowCallFloor),
  slowAfter: policy.slowCallDuration === undefined ? undefined : Duration.toMillis(policy.slowCallDuration),
  openDuration: Duration.toMillis(policy.openDuration),
  maxOpenDuration: Duration.toMillis(policy.maxOpenDuration),
  maxRetryAfter: Duration.toMillis(policy.maxRetryAfter),
  maxHalfOpen: Duration.toMillis(policy.maxHalfOpen),
  halfOpenRetryAfter: Duration.toMillis(policy.halfOpenRetryAfter),
  probeLease: Duration.toMillis(policy.probeLease)
})

// --------------------------------------------------------------------------------------------------------- events

/**
 * A call asks to run.
 *
 * @category combinators
 * @since 0.1.0
 */
export const admit = (rules: Rules, before: Circuit, now: number): Step<Decision> => {
  const { circuit, events } = settle(rules, before, now)
  const { phase } = circuit
  switch (phase._tag) {
    case "Closed":
    case "Disabled":
    case "MetricsOnly":
      return { circuit, decision: { _tag: "Admitted", generation: circuit.generation, probe: undefined }, events }
    case "ForcedOpen":
      return {
        circuit: { ...circuit, rejected: circuit.rejected + 1 },
        decision: { _tag: "Rejected", phase: "ForcedOpen", retryAfter: rules.openDuration, actor: phase.actor },
        events
      }
    case "Open": {
      if (now < phase.until) {
        return {
          circuit: { ...circuit, rejected: circuit.rejected + 1 },
          decision: { _tag: "Rejected", phase: "Open", retryAfter: phase.until - now },
          events
        }
      }
      const entered = halfOpen(rules, circuit, now)
      const step = admit(rules, entered.circuit, now)
      return { ...step, events: [...events, ...entered.events, ...step.events] }
    }
    case "HalfOpen":
      return { ...probe(rules, circuit, phase, now), events }
  }
}

/**
 * A call ended. The decision tells whether that counted.
 *
 * @category combinators
 * @since 0.1.0
 */
export const end = (
  rules: Rules,
  before: Circuit,
  now: number,
  ended: Ended
): Step<"Counted" | "Ignored" | "Late"> => {
  const { circuit, events } = settle(rules, before, now)
  const { phase } = circuit
  const late = (): Step<"Late"> => ({ circuit: { ...circuit, late: circuit.late + 1 }, decision: "Late", events })
  if (ended.generation !== circuit.generation) return late()
  const decision = ended.outcome === "Ignored" || phase._tag === "Disabled" ? "Ignored" : "Counted"
  switch (phase._tag) {
    case "Disabled":
      return { circuit, decision, events }
    case "Closed":
    case "MetricsOnly":
      if (decision === "Ignored") return { circuit, decision, events }
      return { ...endInWindow(rules, circuit, phase, now, ended), decision }
    case "HalfOpen": {
      if (phase.probes.every(({ id }) => id !== ended.probe)) return late()
      const step = endProbe(rules, circuit, phase, now, ended)
      return { circuit: step.circuit, decision, events: [...events, ...step.events] }
    }
    case "Open":
    case "ForcedOpen":
      return late()
  }
}

/**
 * Somebody decides.
 *
 * @category combinators
 * @since 0.1.0
 */
export const command = (rules: Rules, circuit: Circuit, now: number, { _tag, actor }: Command): Step<void> => {
  const told = { reason: "command", counts: countsOf(rules, circuit, now), actor } as const
  switch (_tag) {
    case "ForceOpen":
      return enter(circuit, { _tag: "ForcedOpen", actor }, told)
    case "Disable":
      return enter(circuit, { _tag: "Disabled", actor }, told)
    case "MetricsOnly":
      return enter(circuit, { _tag: "MetricsOnly", actor, window: CircuitWindow.empty, quietUntil: 0 }, told)
    case "Reset": {
      const { initial } = CircuitState
      const step = enter(circuit, initial.phase, told)
      return { ...step, circuit: { ...initial, probe: circuit.probe, generation: step.circuit.generation } }
    }
  }
}

/**
 * Time passes.
 *
 * @category combinators
 * @since 0.1.0
 */
export const settle = (rules: Rules, circuit: Circuit, now: number): Step<void> => {
  let step = quietly(circuit)
  for (let { phase } = circuit; phase._tag === "HalfOpen"; phase = step.circuit.phase) {
    const at = nextDeadline(step.circuit)
    if (at === undefined || at > now) break
    const over = at < phase.judgeAt ? phase.probes.find(({ leaseUntil }) => leaseUntil === at) : undefined
    const settled = over === undefined
      ? judgeAtLast(rules, step.circuit, at, phase.results)
      : endProbe(rules, step.circuit, phase, at, {
        generation: step.circuit.generation,
        probe: over.id,
        outcome: "TimedOut",
        duration: rules.probeLease
      })
    step = { ...settled, events: [...step.events, ...settled.events] }
  }
  return step
}

/**
 * When `settle` next has something to do.
 *
 * @category getters
 * @since 0.1.0
 */
export const nextDeadline = ({ phase }: Circuit): number | undefined =>
  phase._tag === "HalfOpen"
    ? phase.probes.reduce((first, { leaseUntil }) => Math.min(first, leaseUntil), phase.judgeAt)
    : undefined

/**
 * The rates as of now.
 *
 * @category getters
 * @since 0.1.0
 */
export const rates = (rules: Rules, circuit: Circuit, now: number): Rates => {
  const { calls, failures, slow, timeouts } = countsOf(rules, circuit, now)
  const enough = circuit.phase._tag === "HalfOpen" ? calls > 0 : calls >= rules.policy.minimumCalls
  return {
    calls,
    failureRate: enough ? failures / calls : undefined,
    timeoutRate: enough ? timeouts / calls : undefined,
    slowCallRate: enough ? slow / calls : undefined
  }
}

const countsOf = ({ window }: Rules, { phase }: Circuit, now: number): CircuitWindow.Counts => {
  switch (phase._tag) {
    case "Closed":
    case "MetricsOnly":
      return CircuitWindow.counts(CircuitWindow.roll(phase.window, window, now))
    case "HalfOpen":
      return phase.results
    case "Open":
    case "ForcedOpen":
    case "Disabled":
      return CircuitWindow.none
  }
}

// ---------------------------------------------------------------------------------------------------------- closed

/**
 * Successes that change nothing but counts, and may be put into their circuit together.
 *
 * @category models
 * @since 0.1.0
 */
export interface Successes {
  readonly rules: Rules
  readonly generation: number
  /** Before this moment, in milliseconds. */
  readonly until: number
  /** None of them took longer, in milliseconds. */
  readonly slowAfter: number
  calls: number
  /** What they took together, in milliseconds. */
  duration: number
}

/**
 * What a circuit may be spared from now on; `undefined` where the next success may already change its state.
 *
 * @category constructors
 * @since 0.1.0
 */
export const gather = (rules: Rules, circuit: Circuit, now: number): Successes | undefined => {
  const { generation, latency, phase } = circuit
  if (phase._tag !== "Closed" || CircuitWindow.roll(phase.window, rules.window, now) !== phase.window) return undefined
  const { calls, failures, slow, timeouts } = CircuitWindow.counts(phase.window)
  // With fewer calls the next one, whatever its outcome, may be what makes them enough to judge by.
  if (calls < rules.policy.minimumCalls && failures + slow + timeouts > 0) return undefined
  const until = CircuitWindow.endOf(phase.window, rules.window)
  return { rules, generation, until, slowAfter: slowAfter(rules, latency), calls: 0, duration: 0 }
}

/**
 * Puts them in.
 *
 * @category combinators
 * @since 0.1.0
 */
export const addSuccesses = (circuit: Circuit, { calls, duration }: Successes): Circuit => {
  const { latency, phase } = circuit
  if (phase._tag !== "Closed" || calls === 0) return circuit
  const { window } = phase
  const current = CircuitWindow.add(window.current, { ...CircuitWindow.none, calls })
  return {
    ...circuit,
    latency: { ...latency, sum: latency.sum + duration, calls: latency.calls + calls },
    phase: { ...phase, window: { ...window, current } }
  }
}

const endInWindow = (
  rules: Rules,
  circuit: Circuit,
  phase: Closed | MetricsOnly,
  now: number,
  ended: Ended
): Step<void> => {
  const rolled = CircuitWindow.roll(phase.window, rules.window, now)
  const known = rolled === phase.window
    ? circuit.latency
    : CircuitWindow.learn(circuit.latency, rules.policy.minimumCalls, now)
  const window: CircuitWindow.Window = {
    ...rolled,
    current: CircuitWindow.count(rolled.current, judgeOutcome(rules, known, ended))
  }
  const latency = ended.outcome === "Success"
    ? CircuitWindow.measure(known, ended.duration, slowAfter(rules, known))
    : known
  const next: Circuit = { ...circuit, latency, phase: { ...phase, window } }
  const counts = CircuitWindow.counts(window)
  const reason = findExcess(rules.policy, counts)
  if (reason === undefined) return quietly(next)
  const exceeded: ThresholdExceeded = { _tag: "ThresholdExceeded", reason, counts }
  if (phase._tag === "MetricsOnly") {
    return now < phase.quietUntil ? quietly(next) : {
      circuit: { ...next, phase: { ...phase, window, quietUntil: now + rules.window } },
      decision: undefined,
      events: [exceeded]
    }
  }
  const opened = open(rules, next, now, { reason, counts, retryAfter: ended.retryAfter })
  return { ...opened, events: [exceeded, ...opened.events] }
}

/** A call that takes longer is slow. */
const slowAfter = (rules: Rules, { normal }: CircuitWindow.Latency): number =>
  Math.max(
    rules.slowFloor,
    rules.slowAfter ?? (normal === undefined ? Infinity : normal * rules.policy.slowCallFactor)
  )

const judgeOutcome = (rules: Rules, latency: CircuitWindow.Latency, ended: Ended) => ({
  failed: ended.outcome !== "Success",
  timedOut: ended.outcome === "TimedOut",
  slow: ended.duration > slowAfter(rules, latency)
})

/** Shares of numbers such as a tenth of twenty are a little off what they should be. */
const epsilon = 1e-9

const findExcess = (policy: CircuitPolicy, { calls, failures, slow, timeouts }: CircuitWindow.Counts) => {
  const reached = (count: number, rate: number) => count >= rate * calls - epsilon
  if (calls < policy.minimumCalls) return undefined
  if (reached(failures, policy.failureRate)) return "failureRate" satisfies Excess
  if (reached(timeouts, policy.timeoutRate)) return "timeoutRate" satisfies Excess
  return reached(slow, policy.slowCallRate) ? "slowCallRate" satisfies Excess : undefined
}

// ------------------------------------------------------------------------------------------------------- half-open

const halfOpen = ({ maxHalfOpen, policy }: Rules, circuit: Circuit, now: number): Step<void> =>
  enter(circuit, {
    _tag: "HalfOpen",
    judgeAt: now + maxHalfOpen,
    credit: 1 - policy.halfOpenShare,
    probes: [],
    results: CircuitWindow.none
  }, { reason: "openTimeOver", counts: CircuitWindow.none })

/** Lets a call through when its turn has come and there is room. */
const probe = (rules: Rules, circuit: Circuit, phase: HalfOpen, now: number): Step<Decision> => {
  const { halfOpenCalls, halfOpenInFlight, halfOpenShare } = rules.policy
  const credit = Math.min(1, phase.credit + halfOpenShare)
  const room = Math.min(
    halfOpenShare < 1 && phase.results.calls === 0 ? 1 : halfOpenInFlight,
    halfOpenCalls - phase.results.calls
  )
  if (credit < 1 - epsilon || phase.probes.length >= room) {
    return {
      circuit: { ...circuit, rejected: circuit.rejected + 1, phase: { ...phase, credit } },
      decision: {
        _tag: "Rejected",
        phase: "HalfOpen",
        retryAfter: Math.min(rules.halfOpenRetryAfter, phase.judgeAt - now)
      },
      events: nothing
    }
  }
  const id = circuit.probe + 1
  const probes = [...phase.probes, { id, leaseUntil: now + rules.probeLease }]
  return {
    circuit: { ...circuit, probe: id, phase: { ...phase, credit: 0, probes } },
    decision: { _tag: "Admitted", generation: circuit.generation, probe: id },
    events: nothing
  }
}

const endProbe = (rules: Rules, circuit: Circuit, phase: HalfOpen, now: number, ended: Ended): Step<void> => {
  const { earlyReopen, halfOpenCalls, halfOpenSuccessRate } = rules.policy
  const probes = phase.probes.filter(({ id }) => id !== ended.probe)
  if (ended.outcome === "Ignored") return quietly({ ...circuit, phase: { ...phase, probes, credit: 1 } })
  const results = CircuitWindow.count(phase.results, judgeOutcome(rules, circuit.latency, ended))
  const next: Circuit = { ...circuit, phase: { ...phase, probes, results } }
  const { retryAfter } = ended
  if (earlyReopen && results.failures > (1 - halfOpenSuccessRate) * halfOpenCalls + epsilon) {
    return open(rules, next, now, { reason: "probesFailed", counts: results, retryAfter })
  }
  return results.calls < halfOpenCalls ? quietly(next) : judge(rules, next, now, { counts: results, retryAfter })
}

const judge = (rules: Rules, circuit: Circuit, at: number, options: {
  readonly counts: CircuitWindow.Counts
  readonly retryAfter?: number | undefined
}): Step<void> => {
  const { calls, failures, slow } = options.counts
  if (failures > (1 - rules.policy.halfOpenSuccessRate) * calls + epsilon) {
    return open(rules, circuit, at, { reason: "probesFailed", ...options })
  }
  if (slow >= rules.policy.slowCallRate * calls - epsilon) {
    return open(rules, circuit, at, { reason: "probesSlow", ...options })
  }
  return enter({ ...circuit, openings: 0 }, CircuitState.initial.phase, {
    reason: "probesSucceeded",
    counts: options.counts
  })
}

/** The half-open phase is over. */
const judgeAtLast = (rules: Rules, circuit: Circuit, at: number, counts: CircuitWindow.Counts): Step<void> =>
  counts.calls < rules.policy.halfOpenMinimumCalls
    ? open(rules, circuit, at, { reason: "tooFewProbes", counts })
    : judge(rules, circuit, at, { counts })

// ----------------------------------------------------------------------------------------------------- transitions

const nothing: Step<void>["events"] = []

const quietly = (circuit: Circuit): Step<void> => ({ circuit, decision: undefined, events: nothing })

const open = (rules: Rules, circuit: Circuit, at: number, options: {
  readonly reason: Reason
  readonly counts: CircuitWindow.Counts
  readonly retryAfter?: number | undefined
}): Step<void> => {
  const { counts, reason, retryAfter = 0 } = options
  const { maxOpenDuration, maxRetryAfter, openDuration, policy } = rules
  const openFor = Math.max(
    Math.min(maxOpenDuration, openDuration * policy.openFactor ** Math.min(circuit.openings, 100)),
    Math.min(maxRetryAfter, retryAfter)
  )
  const step = enter(circuit, { _tag: "Open", until: at + openFor }, { reason, counts, openFor })
  return { ...step, circuit: { ...step.circuit, openings: circuit.openings + 1 } }
}

const enter = (circuit: Circuit, phase: Phase, options: {
  readonly reason: Reason
  readonly counts: CircuitWindow.Counts
  readonly openFor?: number
  readonly actor?: string
}): Step<void> => {
  const generation = circuit.generation + 1
  const from = circuit.phase._tag
  return {
    circuit: { ...circuit, generation, phase },
    decision: undefined,
    events: [{ _tag: "Transition", from, to: phase._tag, generation, attempt: circuit.openings, ...options }]
  }
}
