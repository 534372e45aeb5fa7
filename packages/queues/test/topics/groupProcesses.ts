import { assert } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as ChildProgram from "@strata/testing/ChildProgram"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

export interface Handled {
  readonly label: string
  readonly position: bigint
  readonly partition: number
  readonly key: string
  readonly n: number
  /** Of its batch, both within the transaction. */
  readonly begun: Timestamp.Timestamp
  readonly ended: Timestamp.Timestamp
}

export const createTable = Effect.flatMap(Postgres, ({ sql }) =>
  sql`
    create table if not exists handled_apart (
      "group" text not null, label text not null, position bigint not null, partition integer not null, key text,
      n integer not null, number bigint generated always as identity, begun timestamptz not null default clock_timestamp(),
      ended timestamptz
    )`)

/** What the processes of a group have handled and committed, in the order in which they began to. */
export const handledBy = Effect.fnUntraced(function*(group: string) {
  const { sql } = yield* Postgres
  return yield* sql<Handled>`
    select label, position, partition, key, n, begun, ended from handled_apart where "group" = ${group} order by number`
})

export interface Member {
  readonly group: string
  readonly topic: string
  readonly label: string
  readonly instance?: string
  readonly sessionMillis?: number
  readonly hold?: boolean
  readonly relays?: boolean
}

const toJson = Schema.encodeSync(Schema.fromJsonString(Schema.Unknown))

/** Starts a process that takes part in a group: see `programs/groupMember.ts`. */
export const startMember = (url: string | Redacted.Redacted, options: Member) =>
  ChildProgram.start(new URL("../programs/groupMember.ts", import.meta.url), {
    args: [toJson({ sessionMillis: 1500, hold: false, relays: true, ...options })],
    env: { DATABASE_URL: Redacted.isRedacted(url) ? Redacted.value(url) : url }
  })

/** Every message once, those of a key and of a partition in the order of the topic, and no partition by two members at one instant. */
export const assertOnceInOrder = (rows: ReadonlyArray<Handled>, total: number) => {
  deepStrictEqual([rows.length, new Set(rows.map(({ position }) => position)).size], [total, total])
  for (const [key, of] of Map.groupBy(rows, ({ key }) => key)) {
    assert.isTrue(of.every(({ position }, place) => place === 0 || position > of[place - 1]!.position), key)
  }
  for (const of of Map.groupBy(rows, ({ partition }) => partition).values()) {
    const [first, ...rest] = of.toSorted((one, other) => Number(one.position - other.position))
    let last = first
    for (const row of rest) {
      assert.isTrue(
        row.begun >= last!.begun && (row.label === last!.label || row.begun >= last!.ended),
        `${row.label} began with ${row.position} before ${last!.label} had ended with ${last!.position}`
      )
      last = row
    }
  }
}
