/**
 * How far a group has read the partitions of its topics, fenced by their epochs.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { Fenced } from "../TopicError.ts"
import type { Life } from "../TopicLog.ts"

/**
 * From which message to which a partition moves, in the epoch of its owner and the life of the server in which both were there.
 *
 * @category models
 * @since 0.1.0
 */
export interface Move {
  readonly partition: number
  readonly epoch: bigint
  readonly from: bigint
  readonly to: bigint
  readonly life: Life
}

/** The partitions are where the move would take them: the answer to an earlier attempt was lost after its commit. */
class AlreadyMoved extends Data.TaggedError("AlreadyMoved") {}
const isAlreadyMoved = (error: unknown): error is AlreadyMoved => error instanceof AlreadyMoved

/**
 * The offsets of a group.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  { rows, transact }: Postgres["Service"],
  group: { readonly id: number; readonly name: string },
  nameOf: (topic: number) => string
) => {
  const columns = (topic: number, moves: ReadonlyArray<Move>) => [
    Pg.int(group.id),
    Pg.int(topic),
    Pg.intArray(moves.map(({ partition }) => partition)),
    Pg.bigintArray(moves.map(({ epoch }) => epoch)),
    Pg.bigintArray(moves.map(({ from }) => from)),
    Pg.bigintArray(moves.map(({ to }) => to)),
    Pg.uuidArray(moves.map(({ life }) => life))
  ]

  const step = Effect.fnUntraced(function*(topic: number, moves: ReadonlyArray<Move>) {
    if (moves.length === 0) return
    const moved = yield* rows(move, columns(topic, moves))
    if (moved.length === moves.length) return
    // Nothing of it is kept, so what was moved here counts neither.
    if (moved.length === 0 && (yield* lostOf(topic, moves)).length === 0) return yield* new AlreadyMoved()
    const lost = moves.filter(({ partition }) => !moved.some(([other]) => other === partition))
    return yield* new Fenced({
      group: group.name,
      topic: nameOf(topic),
      partitions: lost.map(({ partition }) => partition)
    })
  })

  /** Partitions that are not where the moves take them. */
  const lostOf = Effect.fnUntraced(function*(topic: number, moves: ReadonlyArray<Move>) {
    const there = yield* rows(reached, columns(topic, moves))
    const isThere = new Set(there.map(([partition, isMoved]) => isMoved === true ? partition : undefined))
    return moves.map(({ partition }) => partition).filter((partition) => !isThere.has(partition))
  })

  return {
    /**
     * Commits an effect and the moves together, or nothing. The rows are locked last, so that they are free while the effect takes place.
     * Repeating it is safe: what was committed is not committed again.
     */
    moveWith: <E, R>(
      topic: number,
      moves: ReadonlyArray<Move>,
      effect: Effect.Effect<unknown, E, R>
    ): Effect.Effect<void, E | Fenced | SqlError | TransactionError, R> =>
      transact(Effect.andThen(effect, step(topic, moves)), { idempotent: true }).pipe(
        Effect.catchIf(isAlreadyMoved, () => Effect.void)
      ),

    /** Begins a life of the server, unless it has one. */
    live: Effect.asVoid(
      rows("insert into topic_life (id) values (gen_random_uuid()) on conflict do nothing", [])
    ),

    /** Moves with nothing else, as many as can be. Gives the partitions that others have, which it leaves alone. */
    pass: Effect.fnUntraced(function*(
      topic: number,
      moves: ReadonlyArray<Move>
    ): Effect.fn.Return<ReadonlyArray<number>, SqlError> {
      if (moves.length === 0) return []
      const moved = yield* rows(pass, columns(topic, moves))
      return moved.length === moves.length ? [] : yield* lostOf(topic, moves)
    })
  }
}

// By primary key, in its order.
const moveFrom = (moves: string) => `
  update group_partition p
  set position = m.reached
  from ${moves}
  where p.consumer_group = $1 and p.topic = $2 and p.partition = m.partition and p.epoch = m.epoch and p.position = m.before
    and m.life = (select l.id from topic_life l)
  returning p.partition`

const given = `
  unnest($3::integer[], $4::bigint[], $5::bigint[], $6::bigint[], $7::uuid[]) as m (partition, epoch, before, reached, life)`

const move = moveFrom(given)

// Whoever has what was saved lost by a crash of the server begins a little earlier, as after one a little sooner.
const pass = moveFrom(`(select set_config('synchronous_commit', 'off', true)) as commit (mode), ${given}`)

const reached = `
  select p.partition, p.position >= m.reached and p.epoch = m.epoch
  from ${given}
  join group_partition p on p.consumer_group = $1 and p.topic = $2 and p.partition = m.partition`

/**
 * The offsets of a group.
 *
 * @category models
 * @since 0.1.0
 */
export type Offsets = ReturnType<typeof make>
