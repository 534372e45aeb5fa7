import { FailureClass, Policy, Resilience, RetryPolicy } from "@strata/resilience"
import * as Shop from "./shop.ts"

// What a failure means is the caller's to say; a price may be asked for twice.
const classify: FailureClass.Classifier = (error) =>
  error instanceof Shop.SupplierDown ? FailureClass.transient : FailureClass.classify(error)

const policy = Policy.make({
  name: "prices",
  deadline: "500 millis",
  retry: { policy: RetryPolicy.realtime, idempotent: true, classify },
  attempt: "50 millis"
})

Shop.open(Resilience.protect(Shop.askSupplier, policy), policy)
