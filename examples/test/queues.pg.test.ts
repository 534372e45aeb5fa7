import * as NodeServices from "@effect/platform-node/NodeServices"
import { it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Guide from "./guide.ts"

it.live(
  "the guide of queues shows each program as it is, and what it prints",
  () =>
    Effect.flatMap(Guide.directory, (directory) =>
      Guide.assertTold({
        guide: "queues",
        modules: ["queues/database"],
        programs: ["queues/1-work", "queues/2-transaction", "queues/3-patterns", "queues/4-schedule"],
        directory
      })).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
  60_000
)
