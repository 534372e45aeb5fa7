import { describe, it } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as Outage from "@strata/postgres/Outage"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as References from "effect/References"

describe("an outage", () => {
  it.effect("is warned of once, until it has passed", () =>
    Effect.gen(function*() {
      const logged: Array<string> = []
      const kept = Logger.layer([
        Logger.make(({ logLevel, message }) => {
          logged.push(`${logLevel} ${String(Array.isArray(message) ? message[0] : message)}`)
        })
      ])
      const outage = Outage.make()
      const fails = (message: string) => outage.failed(message, Cause.fail("gone"))
      yield* Effect.all([fails("first"), fails("second"), outage.passed, fails("third")]).pipe(
        Effect.provide(kept),
        Effect.provideService(References.MinimumLogLevel, "Debug")
      )
      deepStrictEqual(logged, ["Warn first", "Debug second", "Warn third"])
    }))
})
