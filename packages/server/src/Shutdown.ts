/**
 * That the server begins to stop. Answers that last, such as feeds, end by it instead of holding the shutdown up.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"

/**
 * The beginning of the end.
 *
 * @category services
 * @since 0.1.0
 */
export class Shutdown extends Context.Service<Shutdown, {
  /** Waits for it. */
  readonly begun: Effect.Effect<void>
  readonly begin: Effect.Effect<void>
}>()("@strata/server/Shutdown") {
  static readonly layer: Layer.Layer<Shutdown> = Layer.effect(
    Shutdown,
    Effect.map(Latch.make(), (latch) => ({ begun: latch.await, begin: Effect.asVoid(latch.open) }))
  )

  /** Begins it when the scope closes: the last layer to be built is the first to be released. */
  static readonly atRelease: Layer.Layer<never, never, Shutdown> = Layer.effectDiscard(
    Effect.flatMap(Shutdown, ({ begin }) => Effect.addFinalizer(() => begin))
  )
}
