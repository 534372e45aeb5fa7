/**
 * A database that writes down what is claimed and settled through it, and comes by failpoints on the way.
 *
 * It looks at the statements and their answers, so what is watched has no part in it.
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import type { Way } from "./Failpoint.ts"
import { now, type Record, type What } from "./History.ts"

type Rows = Postgres["Service"]["rows"]

export interface Watch {
  readonly worker: string
  readonly record: Record
  readonly way: Way
}

/** The database of the context, watched. */
export const layer = (watch: Watch): Layer.Layer<Postgres, never, Postgres> =>
  Layer.effect(Postgres, Effect.map(Postgres, (postgres) => Postgres.of({ ...postgres, rows: rows(postgres, watch) })))

const rows = (postgres: Postgres["Service"], watch: Watch): Rows => {
  const held: Held = new Map()
  const watched: { readonly [W in What]: Rows } = {
    claim: claiming(postgres.rows, held, watch),
    settle: settling(postgres, held, watch),
    send: (text, parameters) => {
      const sending = postgres.rows(text, parameters)
      return Effect.flatMap(
        postgres.inTransaction,
        (isInside) => isInside ? sending : Effect.tap(sending, () => watch.way.passing("after-send", []))
      )
    }
  }
  return (text, parameters) => {
    const what = whatOf(text)
    return what === undefined
      ? postgres.rows(text, parameters)
      : Effect.tapError(
        watched[what](text, parameters),
        () => Effect.sync(() => watch.record({ _tag: "Broke", at: now(), worker: watch.worker, what }))
      )
  }
}

const whatOf = (text: string): What | undefined => {
  if (text.includes("take_messages(")) return "claim"
  if (text.includes("settle_messages(") || text.includes("settle_leases(")) return "settle"
  return text.includes("insert into message (") || text.includes("send_messages(") ? "send" : undefined
}

/** Of each lease, the messages of which nothing was said yet. What is said again, for there was no answer, is not looked at. */
type Held = Map<string, Set<number>>

const claiming = (rows: Rows, held: Held, { record, way, worker }: Watch): Rows => (text, parameters) =>
  Effect.tap(rows(text, parameters), (found) => {
    for (const [token, of] of Map.groupBy(found, ([token]) => String(token))) {
      const ids = of.map(([, , id]) => Number(id))
      held.set(token, new Set(ids))
      record({ _tag: "Claimed", at: now(), claimedAt: Number(of[0]?.[1]), worker, token, ids })
    }
    return found.length === 0 ? Effect.void : way.passing("after-claim", found.map(([, , id]) => Number(id)))
  })

const settling = (postgres: Postgres["Service"], held: Held, { record, way, worker }: Watch): Rows =>
  Effect.fnUntraced(function*(text, parameters) {
    const isWhole = text.includes("settle_leases(")
    const [first, ...lists] = parameters.map(valueOf)
    const take = (token: string, ids: Iterable<number>) => {
      const open = held.get(token)
      return { token, ids: [...ids].filter((id) => open?.delete(id)) }
    }
    const said = isWhole
      ? listOf(first).map(String).map((token) => take(token, [...held.get(token) ?? []]))
      : [take(String(first), idsOf(lists))]
    const all = said.flatMap(({ ids }) => ids)
    yield* way.passing("before-ack", all)
    const askedAt = now()
    const statement = postgres.rows(text, parameters)
    const found = yield* (way.failpoint?.place === "in-ack"
      // The process is gone when all is written and nothing is committed.
      ? Effect.orDie(postgres.transact(Effect.tap(statement, () => way.passing("in-ack", all))))
      : statement)
    const kept = new Set(found.map(([token]) => String(token)))
    for (const { ids, token } of said) {
      const accepted = isWhole ? kept.has(token) : found[0]?.[0] === true
      record({ _tag: "Settled", at: now(), askedAt, worker, token, ids, accepted })
    }
    yield* way.passing("after-ack", all)
    return found
  })

/** Done, given back, to be tried again, given up: the lists of ids among the parameters. */
const idsOf = (lists: ReadonlyArray<unknown>): ReadonlyArray<number> =>
  lists.flatMap(listOf).filter(Predicate.isBigInt).map(Number)

const valueOf = (parameter: unknown): unknown => Predicate.hasProperty(parameter, "value") ? parameter.value : undefined

const listOf = (value: unknown): ReadonlyArray<unknown> => Array.isArray(value) ? value : []
