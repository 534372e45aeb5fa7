import { assert, describe, it } from "@effect/vitest"
import * as PoisonDetection from "@strata/resilience/errors/PoisonDetection"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as SeededScheduler from "@strata/testing/SeededScheduler"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Schema from "effect/Schema"

const { claimed, detect, failed, fingerprint, fresh, released, standard } = PoisonDetection

const failedWith = (history: PoisonDetection.History, mark: string, failure = FailureClass.permanent) =>
  failed(claimed(history), { failure, fingerprint: mark })

class CardRefused extends Data.TaggedError("CardRefused")<{ readonly message: string }> {}
class Wrapper extends Data.TaggedError("Wrapper")<{ readonly reason: object }> {}

describe("work", () => {
  it("is poison after three attempts that began, also when none of them came to an answer", () => {
    const twice = pipe(fresh, claimed, claimed)
    assert.isUndefined(detect(standard, twice))
    assert.deepStrictEqual(detect(standard, claimed(twice)), { _tag: "TooManyAttempts", attempts: 3 })
  })

  it("is poison after the same failure three times in a row, before its attempts are used up", () => {
    const rules = PoisonDetection.make({ attempts: 10 })
    const twice = pipe(fresh, (history) => failedWith(history, "a"), (history) => failedWith(history, "a"))
    assert.isUndefined(detect(rules, twice))
    assert.deepStrictEqual(detect(rules, failedWith(twice, "a")), { _tag: "SameFailure", fingerprint: "a", times: 3 })
  })

  it("is no poison while its failures differ", () => {
    const rules = PoisonDetection.make({ attempts: 10 })
    const history = ["a", "a", "b", "a", "a"].reduce((history, mark) => failedWith(history, mark), fresh)
    assert.isUndefined(detect(rules, history))
    assert.strictEqual(history.repeats, 2)
  })

  it("is not blamed for a destination that is down or busy", () => {
    const history = Arr.range(1, 100).reduce(
      (history, n) =>
        failedWith(history, "down", n % 2 === 0 ? FailureClass.transient : FailureClass.throttled("1 second")),
      fresh
    )
    assert.deepStrictEqual(history, fresh)
  })

  it("has its row of equal failures neither longer nor broken by a destination that is down", () => {
    const rules = PoisonDetection.make({ attempts: 10, sameFailure: 2 })
    const history = failedWith(failedWith(fresh, "a"), "down", FailureClass.transient)
    assert.strictEqual(history.repeats, 1)
    assert.strictEqual(detect(rules, failedWith(history, "a"))?._tag, "SameFailure")
  })

  it("is as if it had not been claimed after an interruption", () => {
    assert.deepStrictEqual(released(claimed(fresh)), fresh)
    assert.deepStrictEqual(released(fresh), fresh)
  })

  it("survives being stored", () => {
    const history = failedWith(claimed(fresh), "a")
    const stored = Schema.encodeUnknownSync(Schema.toCodecJson(PoisonDetection.History))(history)
    assert.deepStrictEqual(Schema.decodeUnknownSync(Schema.toCodecJson(PoisonDetection.History))(stored), history)
  })

  it("is never begun more often than the rules say, for all that befalls it", () => {
    for (const seed of Arr.range(1, 2000)) {
      const next = SeededScheduler.random(seed)
      let history = fresh
      let guilty = 0
      for (let n = 0; n < 50 && detect(standard, history) === undefined; n++) {
        history = claimed(history)
        const fate = Math.floor(next() * 5)
        if (fate === 0) history = released(history)
        else if (fate === 1) history = failed(history, { failure: FailureClass.transient, fingerprint: "down" })
        else if (fate === 2) history = failed(history, { failure: FailureClass.permanent, fingerprint: `${next()}` })
        if (fate >= 2) guilty++
      }
      assert.isAtMost(guilty, standard.attempts, `seed ${seed}`)
      assert.strictEqual(history.attempts, guilty, `seed ${seed}`)
    }
  })

  it("says in words why it is poison", () => {
    assert.strictEqual(
      PoisonDetection.format({ _tag: "TooManyAttempts", attempts: 3 }),
      "poison: 3 attempts began and none succeeded"
    )
    assert.strictEqual(
      PoisonDetection.format({ _tag: "SameFailure", fingerprint: "A: b", times: 4 }),
      "poison: failed 4 times in a row with A: b"
    )
  })

  it("has rules that count from one", () => {
    assert.throws(() => PoisonDetection.make({ attempts: 0 }))
    assert.throws(() => PoisonDetection.make({ sameFailure: 1.5 }))
  })
})

describe("a fingerprint", () => {
  const of = (message: string) => fingerprint(Cause.fail(message))

  const table: ReadonlyArray<readonly [what: string, message: string, expected: string]> = [
    ["numbers", "row 17 of 1024 is bad", "row # of # is bad"],
    ["a UUID", "no order 0b6f5f0e-6a39-4d50-8c1f-6a5f9c2f2f11 here", "no order # here"],
    ["ids that are part of a word", "order-123 and usr_9x are gone", "# and # are gone"],
    ["a long hexadecimal word without a digit", "commit deadbeef is unknown", "commit # is unknown"],
    ["an address", "no user ada@example.org", "no user #"],
    ["what stands in quotes", "key \"ab cd\" or 'ef' or `gh` is taken", "key … or … or … is taken"],
    ["line breaks", "first\n\n  second", "first second"]
  ]
  for (const [what, message, expected] of table) {
    it(`is without ${what}`, () => assert.strictEqual(of(message), `string: ${expected}`))
  }

  it("keeps an apostrophe, which is no quote", () => {
    assert.strictEqual(of("can't do what isn't there"), "string: can't do what isn't there")
  })

  it("is one for each of two bugs, however many ids they are met with", () => {
    const next = SeededScheduler.random(7)
    const id = () => Math.floor(next() * 1e12).toString(36) + "-7"
    const refuse = () => new CardRefused({ message: `card ${id()} of customer ${id()} was refused` })
    const forget = () => new CardRefused({ message: `customer ${id()} has no card` })
    const found = new Set(
      Arr.range(1, 500).flatMap(() => [fingerprint(Cause.fail(refuse())), fingerprint(Cause.die(forget()))])
    )
    assert.strictEqual(found.size, 2, Array.from(found).join("\n"))
  })

  it("names where the error was made, without the line", () => {
    const makeError = () => new Error("broken")
    assert.strictEqual(fingerprint(Cause.die(makeError())), "Error: broken @ makeError (PoisonDetection.test.ts)")
  })

  it("prefers a frame of the program to one of a library", () => {
    const error = new Error("broken")
    error.stack =
      "Error: broken\n    at inner (/app/node_modules/lib/a.js:1:2)\n    at async outer (file:///app/src/b.ts:3:4)"
    assert.strictEqual(fingerprint(Cause.die(error)), "Error: broken @ async outer (b.ts)")
    error.stack = "Error: broken\n    at inner (/app/node_modules/lib/a.js:1:2)"
    assert.strictEqual(fingerprint(Cause.die(error)), "Error: broken @ inner (a.js)")
    error.stack = "Error: broken\n    at /app/src/c.ts:5:6"
    assert.strictEqual(fingerprint(Cause.die(error)), "Error: broken @ c.ts")
  })

  it("names the errors inside of others, and takes the message of the first that has one", () => {
    const error = new Wrapper({ reason: { _tag: "Inner", message: "shut", cause: { _tag: "Innermost" } } })
    error.stack = ""
    assert.strictEqual(fingerprint(Cause.fail(error)), "Wrapper/Inner/Innermost: shut")
  })

  it("ends for an error that is its own cause", () => {
    const error: { readonly _tag: string; cause?: unknown } = { _tag: "Loop" }
    error.cause = error
    assert.strictEqual(fingerprint(Cause.fail(error)), "Loop/Loop/Loop/Loop")
  })

  it("is that of the defect when there are several reasons", () => {
    const cause = Cause.fromReasons<unknown>([...Cause.fail("error").reasons, ...Cause.die("defect").reasons])
    assert.strictEqual(fingerprint(cause), "string: defect")
  })

  it("exists for whatever fails", () => {
    for (const failure of [undefined, null, 5, true, {}, [], Symbol("s"), () => 1]) {
      assert.isString(fingerprint(Cause.fail(failure)))
    }
    assert.strictEqual(fingerprint(Cause.interrupt(1)), "interrupted")
  })

  it("tells long messages apart whose beginnings are equal", () => {
    const begin = "x ".repeat(300)
    const [one, other] = [of(`${begin}one`), of(`${begin}other`)]
    assert.notStrictEqual(one, other)
    assert.strictEqual(one.length, PoisonDetection.maxLength)
  })

  it.effect.prop(
    "is never longer than its limit, and the same each time",
    [Schema.String],
    ([message]) =>
      Effect.sync(() => {
        for (const text of [message, message.repeat(50)]) {
          assert.isAtMost(of(text).length, PoisonDetection.maxLength)
          assert.strictEqual(of(text), of(text))
        }
      }),
    { arbitrary: { runs: 500 } }
  )
})
