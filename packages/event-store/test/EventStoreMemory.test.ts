import { it } from "@effect/vitest"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import { describe } from "vitest"
import { bitemporalContract } from "./bitemporalContract.ts"
import { boundaryContract } from "./boundaryContract.ts"
import { eventStoreContract } from "./eventStoreContract.ts"
import { refusalsContract } from "./refusalsContract.ts"
import { repetitionContract } from "./repetitionContract.ts"
import { reportsContract } from "./reportsContract.ts"
import { streamsContract } from "./streamsContract.ts"

describe("EventStoreMemory", () => {
  eventStoreContract(it, Effect.provide(EventStoreMemory.make(), SecureRandom.layerWebCrypto))
  bitemporalContract(it, Effect.provide(EventStoreMemory.make(), SecureRandom.layerWebCrypto))
  streamsContract(it, Effect.provide(EventStoreMemory.make(), SecureRandom.layerWebCrypto))
  boundaryContract(it, Effect.provide(EventStoreMemory.make(), SecureRandom.layerWebCrypto))
  reportsContract(it, Effect.provide(EventStoreMemory.make(), SecureRandom.layerWebCrypto))
  repetitionContract(it, Effect.provide(EventStoreMemory.make(), SecureRandom.layerWebCrypto))
  refusalsContract(it, Effect.provide(EventStoreMemory.make(), SecureRandom.layerWebCrypto))
})
