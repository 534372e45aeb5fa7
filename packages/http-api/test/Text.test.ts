import { assert, describe, it } from "@effect/vitest"
import * as Text from "@strata/http-api/Text"
import * as Schema from "effect/Schema"

const nested = (levels: number): Schema.Json => {
  let value: Schema.Json = 1
  for (let level = 0; level < levels; level++) value = level % 2 === 0 ? [value] : { value }
  return value
}

describe("text and JSON that can be stored", () => {
  it("nesting has a limit, and a value far beyond it is refused without exhausting the stack", () => {
    assert.isUndefined(Text.jsonIssue(nested(Text.maxDepth)))
    assert.isString(Text.jsonIssue(nested(Text.maxDepth + 1)))
    assert.isString(Text.jsonIssue(nested(200_000)))
    assert.isFalse(Schema.is(Text.Json)(nested(200_000)))
  })

  it("NUL and lone surrogates are refused wherever they are", () => {
    for (const bad of ["\0", "\ud800", "a\udc00b"]) {
      assert.isFalse(Schema.is(Text.Text)(bad))
      assert.isFalse(Schema.is(Text.Json)({ a: [{ b: bad }] }))
      assert.isFalse(Schema.is(Text.JsonObject)({ [bad]: 1 }))
    }
    assert.isTrue(Schema.is(Text.Text)("a\u{1f600}b"))
  })
})
