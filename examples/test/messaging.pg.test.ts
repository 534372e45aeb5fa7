import * as NodeServices from "@effect/platform-node/NodeServices"
import { it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Guide from "./guide.ts"

it.live(
  "the guide of outbox, topics and queues shows each program as it is, and what it prints",
  () =>
    Effect.flatMap(Guide.directory, (directory) =>
      Guide.assertTold({
        guide: "outbox-topics-queues",
        modules: ["messaging/database"],
        programs: ["messaging/1-outbox", "messaging/2-topic", "messaging/3-queue"],
        directory
      })).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
  60_000
)
