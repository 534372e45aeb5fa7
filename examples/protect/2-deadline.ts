import { Policy, Resilience } from "@strata/resilience"
import * as Shop from "./shop.ts"

const policy = Policy.make({ name: "prices", deadline: "100 millis" })

Shop.open(Resilience.protect(Shop.askSupplier, policy), policy)
