import { assert, it } from "@effect/vitest"
import * as Fingerprint from "@strata/event-store/Fingerprint"
import { describe } from "vitest"

describe("Fingerprint", () => {
  it("is FNV-1a of 64 bits", () => {
    let hash = 0xcbf29ce484222325n
    for (const byte of new TextEncoder().encode("s5:größe")) {
      hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n)
    }
    assert.strictEqual(Fingerprint.of("größe"), hash.toString(16).padStart(16, "0"))
  })

  it("is the same whatever the order of keys, and whether what is undefined is left out", () => {
    assert.strictEqual(
      Fingerprint.of({ a: 1, b: { c: [1n], d: null } }),
      Fingerprint.of({ b: { e: undefined, d: null, c: [1n] }, a: 1 })
    )
  })

  it("tells apart what looks alike, and parts that run together", () => {
    const values = [
      "1",
      1,
      1n,
      true,
      "true",
      null,
      undefined,
      "null",
      [],
      {},
      "",
      [1, 2],
      [12],
      ["a", "bc"],
      ["ab", "c"],
      [["a"], "b"],
      ["a", ["b"]],
      { a: "b" },
      ["a", "b"],
      { time: 5n },
      { position: 5n },
      [undefined, 1],
      [1, undefined]
    ]
    assert.strictEqual(new Set(values.map(Fingerprint.of)).size, values.length)
  })

  it("tells 100,000 questions that differ in a number apart", () => {
    const prints = new Set(Array.from({ length: 100_000 }, (_, n) => Fingerprint.of(["default", `account-${n}`])))
    assert.strictEqual(prints.size, 100_000)
  })
})
