/**
 * Reading one's own writes over HTTP: a read waits until the read models show the position it asks for.
 *
 * @since 0.1.0
 */
import { EventStore } from "@strata/event-store/EventStore"
import type * as Fact from "@strata/event-store/Fact"
import { ServiceUnavailable } from "@strata/http-api/Problem"
import { Projections } from "@strata/projections/Projections"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as Effect from "effect/Effect"
import { ServerConfig } from "./ServerConfig.ts"

/**
 * What a read may ask for: the larger one counts.
 *
 * @category models
 * @since 0.1.0
 */
export interface Asked {
  readonly query: { readonly minPosition?: Fact.Position | undefined }
  readonly headers: { readonly "strata-min-position"?: Fact.Position | undefined }
}

/**
 * Makes the function that waits for the projections of these names. Default: all.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(names?: ReadonlyArray<string>) {
  const projections = yield* Projections
  const { minPositionTimeout } = yield* ServerConfig
  return Effect.fn("Reads.waitForPosition")(function*(asked: Asked) {
    const position = larger(asked.query.minPosition, asked.headers["strata-min-position"])
    if (position === undefined) return
    yield* projections.waitFor({ position, projections: names, timeout: minPositionTimeout }).pipe(
      Effect.catchTag(
        "ProjectionBehind",
        (behind) => new ServiceUnavailable({ detail: behind.message, retryAfter: 1 })
      ),
      // What is left is the database: the problem layer tells a passing failure from a defect.
      Effect.catchIf((error) => error._tag !== "ServiceUnavailable", Effect.die)
    )
  })
})

/**
 * Makes the function that waits for the log itself, which no projection holds up.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeForLog = Effect.gen(function*() {
  const store = yield* EventStore
  const { minPositionTimeout } = yield* ServerConfig
  return Effect.fn("Reads.waitForLog")(function*(asked: Asked) {
    const position = larger(asked.query.minPosition, asked.headers["strata-min-position"])
    if (position === undefined) return
    yield* Effect.orDie(store.head).pipe(
      Effect.tap((head) => head < position ? store.changed(head) : Effect.void),
      Effect.repeat({ until: (head) => head >= position }),
      Deadline.within(minPositionTimeout),
      Effect.catchTag(
        "DeadlineExceeded",
        () => new ServiceUnavailable({ detail: `The log has not reached position ${position}`, retryAfter: 1 })
      )
    )
  })
})

const larger = (a: Fact.Position | undefined, b: Fact.Position | undefined): Fact.Position | undefined =>
  a === undefined || b !== undefined && b > a ? b : a
