import { it } from "@effect/vitest"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import { describe } from "vitest"
import { bitemporalContract } from "./bitemporalContract.ts"
import { eventStoreContract } from "./eventStoreContract.ts"

describe("EventStoreMemory", () => {
  eventStoreContract(it, Effect.provide(EventStoreMemory.make(), SecureRandom.layerWebCrypto))
  bitemporalContract(it, Effect.provide(EventStoreMemory.make(), SecureRandom.layerWebCrypto))
})
