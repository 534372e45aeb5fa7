import { CircuitPolicy, FailureClass, Fallback, Policy, RateLimit, Resilience, RetryPolicy } from "@strata/resilience"
import { Effect } from "effect"
import * as Shop from "./shop.ts"

const classify: FailureClass.Classifier = (error) =>
  error instanceof Shop.SupplierDown ? FailureClass.transient : FailureClass.classify(error)

const lastPrices = Effect.runSync(Fallback.makeLastGood<number>({ timeToLive: "1 day" }))

const policy = Policy.make({
  name: "prices",
  deadline: "500 millis",
  limits: [RateLimit.make({ name: "supplier", rate: 50, burst: 100 })],
  bulkhead: { limit: 10, maxWait: "100 millis" },
  breaker: { policy: CircuitPolicy.make({ minimumCalls: 4 }) },
  retry: { policy: RetryPolicy.realtime, idempotent: true, classify },
  attempt: "50 millis",
  fallback: { answer: Fallback.lastGood(lastPrices, "loaf"), when: () => true }
})

Shop.open(Resilience.protect(Shop.askSupplier, policy), policy)
