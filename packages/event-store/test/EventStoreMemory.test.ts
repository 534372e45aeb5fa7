import { assert, it } from "@effect/vitest"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { describe } from "vitest"
import { bitemporalContract } from "./bitemporalContract.ts"
import { boundaryContract } from "./boundaryContract.ts"
import { eventStoreContract } from "./eventStoreContract.ts"
import { questionsContract } from "./questionsContract.ts"
import { refusalsContract } from "./refusalsContract.ts"
import { repetitionContract } from "./repetitionContract.ts"
import { reportsContract } from "./reportsContract.ts"
import { streamsContract } from "./streamsContract.ts"

let stores = 0
const open = Effect.suspend(() => EventStoreMemory.make({ name: `store ${++stores}` })).pipe(
  Effect.provide(SecureRandom.layerWebCrypto)
)

describe("EventStoreMemory", () => {
  eventStoreContract(it, open)
  bitemporalContract(it, open)
  streamsContract(it, open)
  boundaryContract(it, open)
  reportsContract(it, open)
  questionsContract(it, open)
  repetitionContract(it, open)
  refusalsContract(it, open)

  it.effect("has no transactions that work could join", () =>
    Effect.gen(function*() {
      const store = yield* open
      const exit = yield* Effect.exit(Effect.scoped(store.beforeCommit(() => Effect.void)))
      assert.isTrue(Exit.hasDies(exit))
    }))
})
