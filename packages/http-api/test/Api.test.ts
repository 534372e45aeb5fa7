import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import { openApi, openApiJson } from "@strata/http-api/Api"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { fileURLToPath } from "node:url"

const committed = fileURLToPath(new URL("../openapi.json", import.meta.url))

const operations = () =>
  Object.entries(openApi().paths).flatMap(([path, { get, post, put }]) =>
    [get, post, put].flatMap((operation) => operation === undefined ? [] : [{ path, ...operation }])
  )

describe("the contract", () => {
  it.effect("the committed openapi.json is what the contract says (npm run openapi -w packages/http-api)", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      assert.strictEqual(yield* fs.readFileString(committed), openApiJson())
    }).pipe(Effect.provide(NodeFileSystem.layer)))

  it("every operation has an id of its own, a summary and a tag, and names its problems", () => {
    const ids = operations().map(({ operationId }) => operationId)
    assert.strictEqual(new Set(ids).size, ids.length)
    for (const { operationId, responses, summary, tags } of operations()) {
      assert.isString(summary, operationId)
      assert.strictEqual(tags.length, 1, operationId)
      for (const status of [400, 500, 503]) assert.isTrue(status in responses, `${operationId} ${status}`)
    }
  })

  it("components are named like what they describe, and nothing refers to a name that is not there", () => {
    const text = openApiJson()
    const names = Object.keys(openApi().components.schemas)
    assert.isTrue(names.every((name) => /^[A-Z][A-Za-z]+$/.test(name)), names.join())
    const referred = [...text.matchAll(/#\/components\/schemas\/([^"]+)/g)].map(([, name]) => name!)
    assert.deepStrictEqual(referred.filter((name) => !names.includes(name)), [])
    assert.deepStrictEqual(Object.keys(openApi().components.securitySchemes), ["apiKey", "bearer"])
  })

  it("everything but health, metrics and liveness asks for a credential", () => {
    const open = operations().filter(({ security }) => security.length === 0).map(({ path }) => path)
    assert.deepStrictEqual(open.toSorted(), ["/api/v1/health", "/health", "/health/live", "/health/ready", "/metrics"])
  })
})
