import { assert, describe, it } from "@effect/vitest"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"

const instant = Schema.BigInt.check(
  Schema.isBetweenBigInt({ minimum: -210_866_803_200_000_000n, maximum: 9_223_372_036_854_775_806n })
)

const micros = (text: string) => Option.getOrUndefined(Timestamp.parse(text))

describe("Timestamp", () => {
  it.effect.prop("what is written is read back", [instant], ([value]) =>
    Effect.sync(() => {
      const timestamp = Timestamp.fromMicros(value)
      assert.strictEqual(micros(Timestamp.format(timestamp)), timestamp)
    }))

  it.effect.prop(
    "the order of the text is the order of the instants in one century",
    [instant, instant],
    ([a, b]) =>
      Effect.sync(() => {
        const century = 3_155_760_000_000_000n
        const [first, second] = [a, b].map((value) => Timestamp.fromMicros(((value % century) + century) % century))
        if (first === undefined || second === undefined) return
        assert.strictEqual(Timestamp.format(first) < Timestamp.format(second), first < second)
      })
  )

  it("reads zones and fractions", () => {
    assert.strictEqual(micros("1970-01-01T00:00:00Z"), 0n)
    assert.strictEqual(micros("2023-03-24T00:40:03.1+02:00"), 1679611203100000n)
    assert.strictEqual(micros("2023-03-23 22:40:03.123456789z"), 1679611203123456n)
    assert.strictEqual(micros("2023-03-23T17:10-0530"), 1679611200000000n)
    assert.strictEqual(micros("1969-12-31T23:59:59.999999Z"), -1n)
  })

  it("reads no day or hour that does not exist, and no time without a zone", () => {
    for (
      const text of [
        "2023-02-29T00:00:00Z",
        "2023-13-01T00:00:00Z",
        "2023-01-01T24:00:00Z",
        "2023-01-01T00:60:00Z",
        "2023-01-01T00:00:00",
        "2023-01-01",
        "yesterday",
        ""
      ]
    ) {
      assert.isUndefined(micros(text), text)
    }
    assert.isDefined(micros("2024-02-29T00:00:00Z"))
  })

  it("reads no instant that timestamptz has not", () => {
    assert.strictEqual(micros("-004713-11-24T00:00:00Z"), -210_866_803_200_000_000n)
    assert.isUndefined(micros("-004713-11-23T23:59:59.999999Z"))
    assert.isDefined(micros("+294246-01-01T00:00:00Z"))
    for (const text of ["+294277-01-01T00:00:00Z", "+999999-01-01T00:00:00Z", "-009999-01-01T00:00:00Z"]) {
      assert.isUndefined(micros(text), text)
    }
  })

  it("writes years before the first and after the 9999th with a sign", () => {
    assert.strictEqual(
      Timestamp.format(Timestamp.fromMicros(253_402_300_800_000_000n)),
      "+010000-01-01T00:00:00.000000Z"
    )
    assert.strictEqual(
      Timestamp.format(Timestamp.fromMicros(-62_167_219_200_000_001n)),
      "-000001-12-31T23:59:59.999999Z"
    )
  })

  it("infinities surround every instant", () => {
    assert.isTrue(Timestamp.infinity > Timestamp.fromMillis(8.64e15))
    assert.isTrue(Timestamp.negativeInfinity < Timestamp.fromMillis(-8.64e15))
    assert.isFalse(Timestamp.isFinite(Timestamp.infinity))
    assert.isFalse(Timestamp.isFinite(Timestamp.negativeInfinity))
    assert.isTrue(Timestamp.isFinite(Timestamp.fromMicros(0n)))
    assert.strictEqual(micros("infinity"), Timestamp.infinity)
    assert.strictEqual(micros("-infinity"), Timestamp.negativeInfinity)
    assert.strictEqual(Timestamp.format(Timestamp.negativeInfinity), "-infinity")
  })

  it("milliseconds are rounded towards the past", () => {
    assert.strictEqual(Timestamp.toMillis(Timestamp.fromMicros(1_999n)), 1)
    assert.strictEqual(Timestamp.toMillis(Timestamp.fromMicros(-1n)), -1)
    assert.strictEqual(Timestamp.toMillis(Timestamp.fromMicros(-1_000n)), -1)
    assert.strictEqual(Timestamp.fromMillis(1.9), 1_000n)
  })

  it.effect("now is the clock's", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1679611203123)
      assert.strictEqual(yield* Timestamp.now, 1679611203123000n)
    }))

  it.effect("the schema's text is ISO-8601 in UTC", () =>
    Effect.gen(function*() {
      assert.strictEqual(
        yield* Schema.encodeEffect(Timestamp.Timestamp)(Timestamp.fromMicros(1679611203123456n)),
        "2023-03-23T22:40:03.123456Z"
      )
      assert.strictEqual(yield* Schema.decodeEffect(Timestamp.Timestamp)("infinity"), Timestamp.infinity)
      const error = yield* Effect.flip(Schema.decodeEffect(Timestamp.Timestamp)("soon"))
      assert.include(error.message, "ISO-8601")
    }))
})
