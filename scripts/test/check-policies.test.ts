import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import { codeOf, readSources, violations } from "../check-policies.ts"

const imports = [
  `import * as Effect from "effect/Effect"`,
  `import * as Schedule from "effect/Schedule"`,
  `import * as Stream from "effect/Stream"`,
  ``
].join("\n")

const above = "packages/projections/src/Projections.ts"
const below = "packages/event-store/src/LogHead.ts"

/** What is found in a line of code, by its name. */
const uses = (path: string, line: string) =>
  violations([{ path, text: imports + line }]).map((problem) => /^[^ ]+:4 has ([^:]+): /.exec(problem)?.[1])

describe("retries and time-outs by hand", () => {
  it("are named by file, line and what to use instead", () => {
    const text = `${imports}const a = Effect.retry(b, { times: 3 })\nconst c = d.pipe(Effect.timeout("1 second"))\n`
    assert.deepStrictEqual(violations([{ path: above, text }, { path: below, text }]), [
      `${above}:4 has Effect.retry: use RetryPolicy.retry of @strata/resilience`,
      `${above}:5 has Effect.timeout: use Deadline.within of @strata/resilience`,
      `${below}:4 has Effect.retry: use Retrying.retry of @strata/postgres with a named schedule`,
      `${below}:5 has Effect.timeout: name the time in the package's Policies module and take it from there`
    ])
  })

  for (
    const [line, onBothSides] of [
      [`a.pipe(Effect.retry({ schedule: policies.retry }))`, ["Effect.retry"]],
      [`Effect.retryOrElse(a, schedule, b)`, ["Effect.retryOrElse"]],
      [`const again = Schedule.jittered(Schedule.min([a, b]))`, ["Schedule.jittered", "Schedule.min"]],
      [`const again = Schedule\n  .spaced(a)`, ["Schedule.spaced"]],
      [`Effect.sleep("5 seconds")`, ["Effect.sleep"]],
      [`Effect.sleep(5_000)`, ["Effect.sleep"]],
      [`Effect.sleep(Duration.seconds(5))`, ["Effect.sleep"]],
      [`Effect.sleep(options.pause ?? "5 seconds")`, ["Effect.sleep"]],
      [`const pause = Duration.seconds(5); Effect.sleep(pause)`, ["Effect.sleep"]],
      [`const f = ({ pause = "5 seconds" }) => Effect.sleep(pause)`, ["Effect.sleep"]],
      [`a.pipe(Effect.delay("5 seconds"))`, ["Effect.delay"]],
      [`Effect.delay(a, "5 seconds")`, ["Effect.delay"]],
      [`Effect.timeoutOrElse({ duration: "1 second", orElse: () => a })`, ["Effect.timeoutOrElse"]],
      [`Effect.timeoutOption(f("x"), 1000)`, ["Effect.timeoutOption"]],
      [`Effect.repeat({ times: 3 })`, ["Effect.repeat"]],
      [`const nap = Effect.sleep`, ["Effect.sleep"]],
      [`const { retry } = Effect`, ["Effect taken apart"]],
      [`Effect["retry"](a)`, ["Effect taken apart"]],
      [`setTimeout(() => {}, wait)`, ["setTimeout"]]
    ] as const
  ) {
    it(`stand out as ${line.replaceAll("\n", " ")}`, () => {
      assert.deepStrictEqual([uses(above, line), uses(below, line)], [[...onBothSides], [...onBothSides]])
    })
  }

  for (
    const line of [
      `Effect.timeout(a, limit)`,
      `a.pipe(Effect.timeoutOption(options.stopTimeout))`,
      `Effect.repeat(policies.forgetKeys)`,
      `Effect.repeat({ while: b, schedule: policies.poll })`,
      `Stream.retry(policies.reconnect)`
    ]
  ) {
    it(`may be ${line} with a name, but only where resilience cannot be imported`, () => {
      assert.deepStrictEqual([uses(above, line).length, uses(below, line)], [1, []])
    })
  }

  for (
    const line of [
      `Effect.repeat({ until: (head) => head >= position })`,
      `Effect.sleep(Duration.times(took, rest))`,
      `a.pipe(Effect.delay(policies.background))`,
      `const schedule: Schedule.Schedule<unknown> = policies.retry`,
      `Schedule.tap(schedule, f)`,
      `socket.setTimeout(limit, f)`,
      `// Effect.retry(a, { times: 3 })`,
      `/* Effect.sleep("5 seconds") */`,
      `const text = "Effect.retry(a, { times: 3 })"`,
      "const text = `Effect.sleep(\"1 second\") ${name}`",
      `const pattern = /"/; const other = /[/"]/; Effect.succeed("x")`,
      `Other.Effect.retry(a)`
    ]
  ) {
    it(`are not seen in ${line}`, () => assert.deepStrictEqual([uses(above, line), uses(below, line)], [[], []]))
  }

  for (
    const [name, text] of [
      ["another name", `import * as E from "effect/Effect"\nE.retry(a)`],
      ["the whole of effect", `import * as E from "effect"\nE.Effect.retry(a)`],
      ["a list", `import { Effect as E, Option } from "effect"\nE.retry(a)`],
      ["a list over several lines", `import {\n  Option,\n  Effect as $\n} from "effect"\n$.retry(a)`],
      ["its own name", `import { retry as again } from "effect/Effect"\nagain(a)`]
    ] as const
  ) {
    it(`are found under ${name}`, () => assert.strictEqual(violations([{ path: above, text }]).length, 1))
  }

  it("in a template are seen where there is code, and the text around it is none", () => {
    const line =
      "const text = `${Effect.sleep(`${a}` + \"1 second\")} Effect.retry(a) {${b}}`; const c = \"Effect.retry(a)\""
    assert.deepStrictEqual(uses(below, line), ["Effect.sleep"])
  })

  it("are allowed in resilience, in tests, in what is made for tests, and below resilience in modules of policies", () => {
    const text = `${imports}Effect.retry(a, Schedule.spaced("1 second"))`
    const exempt = [
      "packages/resilience/src/RetryPolicy.ts",
      "packages/event-store/test/writers.ts",
      "packages/testing/src/PrivatePostgres.ts",
      "packages/benchmarks/src/Rounds.ts",
      "packages/postgres/src/PostgresPolicies.ts",
      "packages/event-store/src/EventStorePolicies.ts",
      "packages/postgres/src/Retrying.ts",
      "scripts/test/demo.test.ts"
    ]
    assert.deepStrictEqual(violations(exempt.map((path) => ({ path, text }))), [])
    const others = [
      "packages/projections/src/ProjectionPolicies.ts",
      "packages/server/src/Retrying.ts",
      "scripts/demo.ts"
    ]
    assert.strictEqual(violations(others.map((path) => ({ path, text }))).length, 2 * others.length)
  })

  it("keeps every line and every other character of the code where it is", () => {
    const text = "const a = 'b' // c\n/* d\n */ const e = `f${g}h`\n"
    assert.strictEqual(codeOf(text), "const a = ' '     \n    \n    const e = ` ${g} `\n")
  })
})

it.effect("a retry that is planted in a folder is found, and is gone with it", () =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const root = yield* fs.makeTempDirectoryScoped()
    const folder = path.join(root, "packages", "conversations", "src", "write")
    yield* fs.makeDirectory(folder, { recursive: true })
    yield* fs.writeFileString(path.join(folder, "Clean.ts"), `${imports}Effect.void\n`)
    assert.deepStrictEqual(violations(yield* readSources(root)), [])
    yield* fs.writeFileString(path.join(folder, "Planted.ts"), `${imports}Effect.retry(a, { times: 3 })\n`)
    assert.deepStrictEqual(violations(yield* readSources(root)), [
      "packages/conversations/src/write/Planted.ts:4 has Effect.retry: use RetryPolicy.retry of @strata/resilience"
    ])
    yield* fs.remove(path.join(folder, "Planted.ts"))
    assert.deepStrictEqual(violations(yield* readSources(root)), [])
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

it.effect("the repository has none", () =>
  Effect.gen(function*() {
    const path = yield* Path.Path
    const sources = yield* readSources(path.join(import.meta.dirname, "..", ".."))
    assert.isAbove(sources.length, 50)
    assert.deepStrictEqual(violations(sources), [])
  }).pipe(Effect.provide(NodeServices.layer)))
