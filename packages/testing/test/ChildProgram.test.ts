import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import * as ChildProgram from "@strata/testing/ChildProgram"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

const start = ChildProgram.start(new URL("./programs/echo.ts", import.meta.url), {
  args: ["one", "two"],
  env: { GREETING: "hello" }
})

layer(NodeServices.layer, { excludeTestServices: true })("ChildProgram", (it) => {
  it.effect("talks in lines and ends when its input does", () =>
    Effect.gen(function*() {
      const child = yield* start
      yield* child.waitFor((line) => line === "one two hello")
      yield* child.send("a")
      yield* child.send("b")
      yield* child.end
      assert.deepStrictEqual(yield* Stream.runCollect(child.lines), ["echo a", "echo b", "goodbye"])
      assert.strictEqual(yield* child.exitCode, 0)
    }))

  it.effect("can be killed, upon which waiting for a line fails", () =>
    Effect.gen(function*() {
      const child = yield* start
      yield* child.waitFor((line) => line === "one two hello")
      yield* child.kill9
      const error = yield* Effect.flip(child.waitFor(() => true))
      assert.include(error.message, "echo.ts ended before")
    }))

  it.effect("stands still while it is paused", () =>
    Effect.gen(function*() {
      const child = yield* start
      yield* child.waitFor((line) => line === "one two hello")
      yield* child.pause
      yield* child.send("a")
      const silence = yield* Effect.timeoutOption(child.waitFor(() => true), "200 millis")
      assert.isTrue(Option.isNone(silence))
      yield* child.resume
      assert.strictEqual(yield* child.waitFor(() => true), "echo a")
    }))
})
