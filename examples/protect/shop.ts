import { NodeRuntime } from "@effect/platform-node"
import { Deadline, Policy, Resilience } from "@strata/resilience"
import { Console, Effect, Schema } from "effect"

export class SupplierDown extends Schema.TaggedError<SupplierDown>()("SupplierDown", {}) {
  override get message() {
    return "the supplier is down"
  }
}

let calls = 0

/** The price of a loaf, from a supplier in trouble: its 2nd call fails, its 4th hangs, and from the 6th to the 20th it is down. */
export const askSupplier = Effect.suspend(() => {
  calls++
  if (calls === 4) return Effect.never
  return calls === 2 || calls >= 6 && calls <= 20 ? Effect.fail(new SupplierDown()) : Effect.succeed(400 + calls)
})

/** Lets ten customers ask one after the other, and says what each was told. None of them waits longer than a second. */
export const open = <E extends { readonly message: string }>(
  handler: Effect.Effect<number, E, Resilience.Resilience>,
  policy?: Policy.Policy<number, never, never, number>
) =>
  Effect.gen(function*() {
    if (policy !== undefined) yield* Console.log(Policy.format(policy))
    for (let customer = 1; customer <= 10; customer++) {
      const told = handler.pipe(
        Deadline.within("1 second"),
        Effect.match({ onSuccess: (price) => `${price} cents`, onFailure: ({ message }) => `no price: ${message}` })
      )
      yield* Console.log(`customer ${String(customer).padStart(2)}: ${yield* told}`)
    }
    yield* Console.log(`the supplier was asked ${calls} times`)
  }).pipe(Effect.provide(Resilience.layerMemory), NodeRuntime.runMain)
