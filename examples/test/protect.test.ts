import { it } from "@effect/vitest"
import * as Guide from "./guide.ts"

it.live(
  "the guide shows each step of protecting a handler as it is, and what it prints",
  () =>
    Guide.assertTold({
      guide: "protect",
      modules: ["protect/shop"],
      programs: ["1-naked", "2-deadline", "3-retry", "4-breaker", "5-fallback"].map((step) => `protect/${step}`)
    }),
  60_000
)
