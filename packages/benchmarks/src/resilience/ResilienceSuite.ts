/**
 * Resilience beside cockatiel and opossum: what its parts cost, how often they decide, and what the HTTP server gets done in overload.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Server from "../event-store/Server.ts"
import { failure, type Suite } from "../Suite.ts"
import * as Calls from "./Calls.ts"
import * as Decisions from "./Decisions.ts"
import { goals } from "./Goals.ts"
import * as Goodput from "./Goodput.ts"
import * as HttpServer from "./HttpServer.ts"

/**
 * `resilience`.
 *
 * @category suites
 * @since 0.1.0
 */
export const suite: Suite = {
  name: "resilience",
  open: Effect.fnUntraced(function*({ quick }) {
    const server = yield* Server.start
    return {
      versions: yield* versions,
      settings: { ...server.settings, ...HttpServer.settings },
      serverPid: server.pid,
      works: [yield* Calls.make, Decisions.work, yield* Goodput.make(server, { quick })],
      goals,
      notes: [
        "call and decisions: one caller, who calls again when the last call is done; what is called succeeds at once, and is counted.",
        "Strata calls in one running fiber, the peers in a loop of promises; “a fiber for each call” is a caller outside of Effect, " +
        "with Effect.runPromise around every call. Each call is put together anew. Circuits and limits are kept in memory. Each system " +
        "is called in a process of its own, a second to warm up, then timed.",
        "effect: its own retry, breaker, semaphore, time-out and catch. That is what a part costs at least in a fiber.",
        "opossum's time-out, capacity and fallback are options of its breaker: its rows have the breaker in them.",
        "full stack: Strata has a deadline, a limit, a bulkhead, a breaker, a retry, a time-out of each try and a fallback, " +
        "cockatiel the same without a limit, which it does not have, opossum a breaker with time-out, capacity and fallback.",
        "goodput: answers with success within a second. P0 p99 takes a request without one for a second. " +
        "Half of the requests send a message, the others read 20; P0 2 %, P1 18 %, P2 50 %, P3 30 %.",
        "The callers, the HTTP server and PostgreSQL share the machine: at ten times the load, the sending alone takes a good part of a " +
        "core from the server, and what is offered is what was really sent."
      ]
    }
  })
}

const Manifest = Schema.fromJsonString(Schema.Struct({ dependencies: Schema.Record(Schema.String, Schema.String) }))

/** The package's dependencies are exact, so they are the versions. */
const versions = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(import.meta.dirname, "..", "..", "package.json")
  const { dependencies } = yield* Schema.decodeEffect(Manifest)(yield* fs.readFileString(file))
  const { cockatiel = "", effect = "", opossum = "" } = dependencies
  return { node: process.versions.node, effect, cockatiel, opossum }
}).pipe(Effect.mapError(failure("Reading the versions")))
