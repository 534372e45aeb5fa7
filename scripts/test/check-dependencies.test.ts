import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { below, importsOf, type Package, reachable, readPackages, violations } from "../check-dependencies.ts"

const aPackage = (name: string, file: string, text: string, dependencies: ReadonlyArray<string> = []): Package => ({
  name,
  dependencies,
  files: [{ path: `packages/${name}/${file}`, text }]
})

describe("the direction of imports", () => {
  it("lets a package import what lies below it, directly or further down", () => {
    const self = aPackage(
      "projections",
      "src/Projections.ts",
      `import * as Fact from "@strata/event-store/Fact"\nimport type * as Timestamp from "@strata/postgres/Timestamp"\n`,
      ["@strata/event-store", "@strata/postgres"]
    )
    assert.deepStrictEqual(violations([self]), [])
  })

  it("names file, line, import and package when an import goes upwards", () => {
    const self = aPackage(
      "event-store",
      "src/EventStore.ts",
      `import * as Effect from "effect/Effect"\nimport * as Projections from "@strata/projections/Projections"\n`,
      ["effect", "@strata/projections"]
    )
    assert.deepStrictEqual(violations([self]), [
      "packages/event-store/package.json declares @strata/projections, which event-store may not import",
      "packages/event-store/src/EventStore.ts:2 imports @strata/projections/Projections, which event-store may not"
    ])
  })

  it("sees type imports, exports, side effects, dynamic imports and lists over several lines", () => {
    const text = [
      `import type { A } from "a"`,
      `import {`,
      `  B,`,
      `  type C`,
      `} from "b"`,
      `export * as D from "d"`,
      `import "e"`,
      `const f = () => import("f")`,
      `import g, { h } from 'g'`
    ].join("\n")
    assert.deepStrictEqual(importsOf(text).map(({ line, specifier }) => `${line} ${specifier}`), [
      "1 a",
      "5 b",
      "6 d",
      "7 e",
      "8 f",
      "9 g"
    ])
  })

  it("does not count the examples in comments, nor strings that look like imports", () => {
    const text = [
      `/**`,
      ` * import * as X from "@strata/server/main"`,
      ` */`,
      `// const x = import("@strata/server/main")`,
      `export const text = 'a value from "@strata/server/main"'`
    ].join("\n")
    assert.deepStrictEqual(importsOf(text), [])
  })

  it("lets only tests import testing", () => {
    const text = `import * as TestPostgres from "@strata/testing/TestPostgres"\n`
    assert.deepStrictEqual(violations([aPackage("event-store", "test/EventStore.pg.test.ts", text)]), [])
    assert.deepStrictEqual(violations([aPackage("event-store", "src/EventStore.ts", text, ["@strata/testing"])]), [
      "packages/event-store/package.json declares @strata/testing, which event-store may not import",
      "packages/event-store/src/EventStore.ts:1 imports @strata/testing/TestPostgres, which event-store may not"
    ])
  })

  it("lets nobody import benchmarks", () => {
    for (const name of Object.keys(below)) {
      assert.isFalse(reachable(name).has("benchmarks"), name)
    }
  })

  it("has no circle", () => {
    for (const name of Object.keys(below)) {
      assert.isFalse(reachable(name).has(name), name)
    }
  })

  it("keeps the console on the HTTP contract alone", () => {
    const text = `import * as Message from "@strata/conversations/domain/Message"\n`
    assert.deepStrictEqual(violations([aPackage("console", "src/App.ts", text, ["@strata/conversations"])]), [
      "packages/console/package.json declares @strata/conversations, which console may not import",
      "packages/console/src/App.ts:1 imports @strata/conversations/domain/Message, which console may not"
    ])
  })

  it("keeps the contract free of database drivers and the domain free of its surroundings", () => {
    const driver = `import * as PgClient from "@effect/sql-pg/PgClient"\n`
    assert.deepStrictEqual(violations([aPackage("http-api", "src/Api.ts", driver, ["@effect/sql-pg"])]), [
      "packages/http-api/src/Api.ts:1 imports @effect/sql-pg/PgClient, which packages/http-api/src/ may not: " +
      "the contract holds schemas only, and clients load it without a database driver"
    ])
    const reader = `import * as Messages from "../read/Messages.ts"\n`
    assert.deepStrictEqual(violations([aPackage("conversations", "src/domain/Conversation.ts", reader)]), [
      "packages/conversations/src/domain/Conversation.ts:1 imports ../read/Messages.ts, which " +
      "packages/conversations/src/domain/ may not: the domain is pure"
    ])
  })

  it("refuses relative imports across packages and dependencies that are not declared", () => {
    const text = `import * as Fact from "../../event-store/src/Fact.ts"\nimport * as Effect from "effect/Effect"\n`
    assert.deepStrictEqual(violations([aPackage("projections", "src/Projection.ts", text)]), [
      "packages/projections/src/Projection.ts:1 imports ../../event-store/src/Fact.ts, which leaves the package: " +
      "import it by its name",
      "packages/projections/src/Projection.ts:2 imports effect/Effect, which packages/projections/package.json does " +
      "not declare"
    ])
  })

  it("asks for a place for a new package", () => {
    assert.deepStrictEqual(violations([aPackage("misc", "src/index.ts", "")]), [
      "packages/misc/package.json: misc has no place among the packages; give it one in scripts/check-dependencies.ts"
    ])
  })

  it.effect("reads the packages of this repository", () =>
    Effect.gen(function*() {
      const packages = yield* readPackages(new URL("../..", import.meta.url).pathname)
      const postgres = packages.find(({ name }) => name === "postgres")
      assert.include(postgres?.dependencies ?? [], "effect")
      assert.isTrue(postgres?.files.some(({ path }) => path === "packages/postgres/src/Timestamp.ts"))
    }).pipe(Effect.provide(NodeServices.layer)))
})
