import * as NodeServices from "@effect/platform-node/NodeServices"
import { it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Guide from "./guide.ts"

const programs = [
  "projections/1-project",
  "projections/2-correct",
  "projections/3-rebuild",
  "projections/4-replay",
  "projections/5-inline"
]

it.live(
  "the guide of projections shows each program as it is, and what it prints, each time it runs",
  () =>
    Effect.gen(function*() {
      const directory = yield* Guide.directory
      const told = Guide.assertTold({
        guide: "your-first-projection",
        modules: ["projections/bakery"],
        programs,
        directory
      })
      yield* told
      yield* told
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
  180_000
)
