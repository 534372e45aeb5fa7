import { CircuitPolicy, FailureClass, Policy, Resilience, RetryPolicy } from "@strata/resilience"
import * as Shop from "./shop.ts"

const classify: FailureClass.Classifier = (error) =>
  error instanceof Shop.SupplierDown ? FailureClass.transient : FailureClass.classify(error)

// Ten customers are few, so few calls say enough.
const breaker = { policy: CircuitPolicy.make({ minimumCalls: 4 }) }

const policy = Policy.make({
  name: "prices",
  deadline: "500 millis",
  bulkhead: { limit: 10, maxWait: "100 millis" },
  breaker,
  retry: { policy: RetryPolicy.realtime, idempotent: true, classify },
  attempt: "50 millis"
})

Shop.open(Resilience.protect(Shop.askSupplier, policy), policy)
