import { describe, it } from "@effect/vitest"
import { strictEqual } from "@effect/vitest/utils"
import * as HeaderFilter from "@strata/queues/consuming/HeaderFilter"

describe("a header filter", () => {
  it("reads as a line", () => {
    strictEqual(
      HeaderFilter.format(HeaderFilter.or(
        HeaderFilter.and(HeaderFilter.equal("a", 1), HeaderFilter.not(HeaderFilter.like("b", "x%"))),
        HeaderFilter.oneOf("c", ["d", true])
      )),
      "(a = 1 and not b like x%) or c in (d, true)"
    )
  })

  it("is a path in which nothing that is given ends its text", () => {
    strictEqual(
      HeaderFilter.toJsonPath(HeaderFilter.equal("a\"b", "') || true || ('")),
      `(exists($ ? (@."a\\"b" == "') || true || ('")))`
    )
  })
})
