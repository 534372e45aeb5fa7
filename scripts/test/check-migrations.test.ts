import { assert, describe, it } from "@effect/vitest"
import { added, parse, problemsOf } from "../check-migrations.ts"

const [one, other, third] = ["1", "2", "3"].map((digit) => digit.repeat(64)) as [string, string, string]
const listed = parse(`${one}  packages/a/migrations/0001_a.sql\n${other}  packages/b/migrations/0001_b.sql\n`)

describe("a migration that was released", () => {
  it("may stay as it is", () => assert.deepStrictEqual(problemsOf(listed, listed), []))

  it("may not be changed, nor go", () => {
    const [changed, gone] = problemsOf(listed, new Map([["packages/a/migrations/0001_a.sql", third]]))
    assert.include(changed, "packages/a/migrations/0001_a.sql was released and is changed")
    assert.include(gone, "packages/b/migrations/0001_b.sql was released and is gone")
  })
})

describe("a new migration", () => {
  const there = new Map([...listed, ["packages/b/migrations/0002_c.sql", third] as const])

  it("has to be listed", () =>
    assert.deepStrictEqual(problemsOf(listed, there), [
      "packages/b/migrations/0002_c.sql is not listed: run node scripts/check-migrations.ts --add"
    ]))

  it("is listed without a change to what is", () => {
    const changed = new Map([...there, ["packages/a/migrations/0001_a.sql", third] as const])
    assert.deepStrictEqual(added(listed, changed), new Map([...changed, ...listed]))
    assert.strictEqual(problemsOf(added(listed, changed), changed).length, 1)
  })
})
