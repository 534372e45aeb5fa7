/** The life of one alert, without effects: what raising it, and time, do to it, and who is to be told. */
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Duration from "effect/Duration"
import * as Alert from "../alerts/Alert.ts"
import type { AlertPolicy } from "../alerts/AlertPolicy.ts"

/** Now, by both clocks: waits are measured by one, people read the other. */
export interface Moment {
  /** Milliseconds of a monotonic clock. */
  readonly at: number
  readonly time: Timestamp.Timestamp
}

export interface StandingAlert {
  readonly alert: Alert.Alert
  readonly count: number
  readonly first: Moment
  readonly last: Moment
  /** When the escalation began. */
  readonly since: number
  /** The steps that were taken, by their index. */
  readonly taken: ReadonlyArray<number>
  readonly toldAt: number
  readonly toldCount: number
  readonly toldSeverity: Alert.Severity
  /** Whether the window of the last telling is still open. */
  readonly isGrouping: boolean
  readonly acknowledgedBy: string | undefined
}

/** Who is to be told, by the steps that lead to them. */
export interface Telling {
  readonly kind: Alert.Kind
  readonly steps: ReadonlyArray<number>
}

/** The alert was raised, for the first time or again. */
export const raise = (
  policy: AlertPolicy,
  before: StandingAlert | undefined,
  alert: Alert.Alert,
  now: Moment
): { readonly standing: StandingAlert; readonly tell: Telling | undefined } => {
  if (before !== undefined && !Alert.isWorse(alert.severity, before.toldSeverity)) {
    return { standing: { ...before, alert, count: before.count + 1, last: now }, tell: undefined }
  }
  const count = (before?.count ?? 0) + 1
  const begun: StandingAlert = {
    alert,
    count,
    first: before?.first ?? now,
    last: now,
    since: now.at,
    taken: before?.taken ?? [],
    toldAt: now.at,
    toldCount: count,
    toldSeverity: alert.severity,
    isGrouping: true,
    acknowledgedBy: undefined
  }
  const taken = [...begun.taken, ...dueSteps(policy, begun, now.at)]
  return { standing: { ...begun, taken }, tell: { kind: "raised", steps: taken } }
}

/** Steps that are to be taken, by their index. */
const dueSteps = (policy: AlertPolicy, standing: StandingAlert, at: number): ReadonlyArray<number> =>
  openSteps(policy, standing).filter(([, due]) => due <= at).map(([index]) => index)

/** The steps still to be taken, and when each is due. */
const openSteps = (
  { steps }: AlertPolicy,
  { acknowledgedBy, alert, since, taken }: StandingAlert
): ReadonlyArray<readonly [index: number, due: number]> =>
  acknowledgedBy !== undefined
    ? []
    : steps.flatMap(({ after, severity }, index) =>
      taken.includes(index) || Alert.isWorse(severity, alert.severity)
        ? []
        : [[index, since + Duration.toMillis(after)] as const]
    )

const expiry = ({ alert: { expireAfter }, last }: StandingAlert): number =>
  expireAfter === undefined ? Infinity : last.at + Duration.toMillis(Duration.fromInputUnsafe(expireAfter))

const windowEnd = ({ groupWindow }: AlertPolicy, { isGrouping, toldAt }: StandingAlert): number =>
  isGrouping ? toldAt + Duration.toMillis(groupWindow) : Infinity

const repetition = ({ repeatAfter }: AlertPolicy, { acknowledgedBy, toldAt }: StandingAlert): number =>
  acknowledgedBy === undefined ? toldAt + Duration.toMillis(repeatAfter) : Infinity

/** When time does the next thing to it; `Infinity` for never. */
export const dueAt = (policy: AlertPolicy, standing: StandingAlert): number =>
  Math.min(
    expiry(standing),
    windowEnd(policy, standing),
    repetition(policy, standing),
    ...openSteps(policy, standing).map(([, due]) => due)
  )

/** What time does to it: `undefined` when it is over. */
export const advance = (
  policy: AlertPolicy,
  before: StandingAlert,
  at: number
): { readonly standing: StandingAlert | undefined; readonly tell: ReadonlyArray<Telling> } => {
  if (expiry(before) <= at) return { standing: undefined, tell: [{ kind: "resolved", steps: before.taken }] }
  const tell: Array<Telling> = []
  let standing = before
  if (windowEnd(policy, standing) <= at) {
    standing = { ...standing, isGrouping: false }
    if (standing.count > standing.toldCount && standing.acknowledgedBy === undefined) {
      tell.push({ kind: "summary", steps: standing.taken })
      standing = { ...standing, toldAt: at, toldCount: standing.count }
    }
  }
  if (repetition(policy, standing) <= at) {
    tell.push({ kind: "repeated", steps: standing.taken })
    standing = { ...standing, toldAt: at, toldCount: standing.count }
  }
  const steps = dueSteps(policy, standing, at)
  if (steps.length > 0) {
    tell.push({ kind: "escalated", steps })
    standing = { ...standing, taken: [...standing.taken, ...steps] }
  }
  return { standing, tell }
}
