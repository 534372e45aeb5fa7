/**
 * What a run found: the rows, and whether the goals are met. As a table for people and as one JSON object for programs.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import type { Machine } from "./Machine.ts"
import type { Row } from "./Rounds.ts"
import type { Goal, OpenSuite, RowName, Unit } from "./Suite.ts"

/**
 * A goal against what was measured.
 *
 * @category models
 * @since 0.1.0
 */
export interface Judgement {
  readonly work: string
  readonly against: string
  readonly ratio: number
  readonly goal: number
  readonly met: boolean
}

/**
 * The result of a run.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly suite: string
  readonly machine: Machine
  readonly versions: OpenSuite["versions"]
  readonly settings: OpenSuite["settings"]
  readonly rows: ReadonlyArray<Row>
  readonly goals: ReadonlyArray<Judgement>
  readonly notes: ReadonlyArray<string>
  readonly discarded: number
}

/**
 * Judges the goals whose rows were all measured.
 *
 * @category constructors
 * @since 0.1.0
 */
export const judge = (goals: ReadonlyArray<Goal>, rows: ReadonlyArray<Row>): ReadonlyArray<Judgement> =>
  goals.flatMap(({ against, goal, ours, theirs }) => {
    const own = find(rows, ours)
    if (own === undefined) return []
    const peers = typeof theirs === "number" ? [theirs] : theirs.flatMap((name) => find(rows, name)?.median ?? [])
    if (peers.length === 0) return []
    const ratio = own.unit === "ops/s"
      ? own.median / Math.max(...peers)
      : Math.min(...peers) / own.median
    return [{ work: ours.work, against, ratio, goal, met: ratio >= goal }]
  })

const find = (rows: ReadonlyArray<Row>, name: RowName) =>
  rows.find((row) => row.work === name.work && row.system === name.system)

const toJson = Schema.encodeUnknownSync(Schema.fromJsonString(Schema.Unknown))

/**
 * One object on one line. What else the table tells is under `machine`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const json = (report: Report): string =>
  toJson({
    suite: report.suite,
    machine: {
      ...report.machine,
      versions: report.versions,
      settings: report.settings,
      discarded: report.discarded,
      disturbed: report.rows.filter((row) => row.disturbed > 0).map(({ disturbed, system, work }) => ({
        work,
        system,
        runs: disturbed
      }))
    },
    rows: report.rows.map(({ max, median, min, runs, system, unit, work }) => ({
      work,
      system,
      unit,
      median,
      min,
      max,
      runs
    })),
    goals: report.goals
  })

/**
 * The table, with the goals and the notes below it.
 *
 * @category formatting
 * @since 0.1.0
 */
export const table = (report: Report): string =>
  [
    `${report.suite} on ${report.machine.cores} × ${report.machine.cpu}, ${report.machine.platform}`,
    `versions: ${pairs(report.versions)}`,
    `settings: ${pairs(report.settings)}`,
    "",
    ...grid(
      ["work", "system", "median", "min", "max", "runs", "client", "server", ""],
      report.rows.map((row) => [
        row.work,
        row.system,
        quantity(row.median, row.unit),
        quantity(row.min, row.unit),
        quantity(row.max, row.unit),
        String(row.runs),
        row.client.toFixed(2),
        row.server.toFixed(2),
        row.disturbed > 0 ? `${row.disturbed} disturbed` : ""
      ])
    ),
    "",
    ...grid(
      ["goal", "against", "ratio", "at least", ""],
      report.goals.map(({ against, goal, met, ratio, work }) => [
        work,
        against,
        ratio.toFixed(2),
        goal.toFixed(2),
        met ? "met" : "NOT MET"
      ])
    ),
    "",
    "- client and server: the cores that this process and the server kept busy; what is near 1 bounds the number.",
    ...report.notes.map((note) => `- ${note}`),
    `- ${report.discarded} runs were discarded because other processes took the machine.`
  ].join("\n")

const pairs = (record: Readonly<Record<string, string>>): string =>
  Object.entries(record).map(([name, value]) => `${name} ${value}`).join(", ")

const quantity = (value: number, unit: Unit): string => {
  switch (unit) {
    case "ops/s":
      return `${Math.round(value).toLocaleString("en")}/s`
    case "ms":
      return `${value.toFixed(value < 10 ? 2 : 1)} ms`
    case "bytes":
      return `${(value / 1_048_576).toFixed(1)} MiB`
  }
}

/** Columns from the third on are numbers, which end where the column ends. */
const grid = (head: ReadonlyArray<string>, lines: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths = head.map((title, column) => Math.max(title.length, ...lines.map((line) => line[column]!.length)))
  return [head, widths.map((width) => "-".repeat(width)), ...lines].map((line) =>
    line.map((cell, column) => column < 2 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!))
      .join("  ").trimEnd()
  )
}
