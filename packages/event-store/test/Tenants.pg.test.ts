import { layer } from "@effect/vitest"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { bitemporalContract } from "./bitemporalContract.ts"
import { boundaryContract } from "./boundaryContract.ts"
import { eventStoreContract } from "./eventStoreContract.ts"
import { reportsContract } from "./reportsContract.ts"

const Database = Layer.merge(
  PostgresTest.layer({ migrations: [migrations], options: { role: applicationRole } }),
  SecureRandom.layerWebCrypto
)

let stores = 0
const open = Effect.suspend(() => EventStorePostgres.make({ name: `store ${++stores}` }))

layer(Database, { excludeTestServices: true })("EventStorePostgres in the role of an application", (it) => {
  eventStoreContract(it, open)
  bitemporalContract(it, open)
  boundaryContract(it, open)
  reportsContract(it, open)
})
