/**
 * Holds retries, schedules and time-outs in the places where they can be found: nowhere is one written by hand.
 *
 * **Details**
 *
 * - Packages that may import `@strata/resilience` use it, and so do scripts and examples: `RetryPolicy` for what is tried
 *   again, `Deadline` for what may not take longer, `Pace` for what is done now and then.
 * - Packages that may not, since they lie below it or beside it, give each wait, limit and number of tries a name in a
 *   module whose name ends in `Policies`, and retry with `Retrying` of `@strata/postgres`.
 *
 * A loop that ends by a condition (`Effect.repeat` with nothing but `while` or `until`) is no matter of time. Tests, the
 * packages that are made for them and the benchmarks are left out.
 *
 * It reads the code without comments and texts, and follows the names under which a module of effect is imported. It is no
 * compiler: a loop that calls itself after a failure is not seen.
 *
 * Run it alone with `node scripts/check-policies.ts`; it is part of `npm run check`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import { reachable, type SourceFile } from "./check-dependencies.ts"

// ----------------------------------------------------------------------------------------------------------- rules

/** Where resilience may be imported, and where it may not. */
type Side = "above" | "below"

/** What a use is, by the module and the name of what is used. */
type Kind = "retry" | "schedule" | "timeout" | "pause" | "repeat"

const kinds: { readonly [module: string]: { readonly [name: string]: Kind } } = {
  Effect: {
    retry: "retry",
    retryOrElse: "retry",
    timeout: "timeout",
    timeoutOption: "timeout",
    timeoutOrElse: "timeout",
    sleep: "pause",
    delay: "pause",
    repeat: "repeat",
    repeatOrElse: "repeat",
    schedule: "repeat",
    scheduleFrom: "repeat"
  },
  Stream: {
    // A stream that is retried with a named schedule has no caller above who could do it.
    retry: "repeat",
    timeout: "timeout",
    timeoutOrElse: "timeout",
    repeat: "repeat",
    repeatElements: "repeat",
    schedule: "repeat",
    fromSchedule: "repeat",
    tick: "repeat"
  },
  HttpClient: { retry: "retry", retryTransient: "retry" },
  Clock: { sleep: "pause" },
  Schedule: Object.fromEntries(
    [
      ...["exponential", "spaced", "fixed", "fibonacci", "recurs", "cron", "duration", "during", "windowed", "forever"],
      ...["once", "jittered", "upTo", "addDelay", "modifyDelay", "concat", "concatResult", "min", "max"],
      ...["fromStep", "fromStepWithMetadata"]
    ].map((name) => [name, "schedule"])
  )
}

const advice: { readonly [kind in Kind]: { readonly [side in Side]: string } } = {
  retry: {
    above: "use RetryPolicy.retry of @strata/resilience",
    below: "use Retrying.retry of @strata/postgres with a named schedule"
  },
  schedule: {
    above: "use RetryPolicy or Pace of @strata/resilience",
    below: "name it in the package's Policies module and take it from there"
  },
  timeout: {
    above: "use Deadline.within of @strata/resilience",
    below: "name the time in the package's Policies module and take it from there"
  },
  pause: {
    above: "use Pace.after of @strata/resilience",
    below: "name the time in the package's Policies module and take it from there"
  },
  repeat: {
    above: "use Pace.every of @strata/resilience",
    below: "name the schedule in the package's Policies module and take it from there"
  }
}

/** What is not looked at: resilience itself, where things are named, tests and what is made for them. */
const exempt = (path: string): boolean =>
  /^packages\/(?:resilience|testing|benchmarks)\/|(?:^|\/)(?:test|dist)\/|\.test\.ts$/.test(path) ||
  path === "packages/postgres/src/Retrying.ts" ||
  sideOf(path) === "below" && /\/src\/(?:.*\/)?\w*Policies\.ts$/.test(path)

const sideOf = (path: string): Side => {
  const name = /^packages\/([^/]+)\//.exec(path)?.[1]
  return name === undefined || reachable(name).has("resilience") ? "above" : "below"
}

// ----------------------------------------------------------------------------------------------------------- check

/** Everything that breaks the rules, a line each. */
export const violations = (files: ReadonlyArray<SourceFile>): ReadonlyArray<string> =>
  files.filter(({ path }) => !exempt(path)).flatMap(({ path, text }) => {
    const code = codeOf(text)
    const side = sideOf(path)
    return [...usesOf(code, text), ...timersOf(code)]
      .filter((use) => isByHand(use, side, code))
      .sort((a, b) => a.at - b.at)
      .map(({ at, kind, what }) => `${path}:${lineAt(code, at)} has ${what}: ${advice[kind][side]}`)
  })

/** Something of effect that has to do with time. Without arguments it is handed on, so nobody sees with what it is called. */
interface Use {
  readonly at: number
  readonly what: string
  readonly kind: Kind
  readonly values: ReadonlyArray<string> | undefined
}

const isByHand = ({ kind, values }: Use, side: Side, code: string): boolean => {
  if (kind === "retry" || kind === "schedule" || values === undefined) return true
  const value = values[values.length > 1 ? 1 : 0] ?? ""
  if (kind === "repeat") {
    const paced = !/^\s*\{/.test(value) || fieldOf(value, "schedule") !== undefined ||
      fieldOf(value, "times") !== undefined
    return side === "above" ? paced : isLiteral(fieldOf(value, "times") ?? "", code) || /^\s*["'`\d]/.test(value)
  }
  if (kind === "timeout" && side === "above") return true
  return isLiteral(fieldOf(value, "duration") ?? value, code)
}

/** The value of a field of an object literal. */
const fieldOf = (value: string, name: string): string | undefined => {
  if (!/^\s*\{/.test(value)) return undefined
  const field = new RegExp(`^\\s*${name}\\s*(?::|$)`)
  const found = partsOf(value.trim().slice(1, -1)).find((part) => field.test(part))
  return found === undefined ? undefined : found.replace(field, "") || name
}

/** True of a value that says a number or a text, itself or by a name that this file gives it. */
const isLiteral = (value: string, code: string): boolean => {
  if (/["'`]|(?<![\w$.])\d/.test(value)) return true
  const name = /^\s*([\w$]+)\s*$/.exec(value)?.[1]
  return name !== undefined && name !== "undefined" &&
    new RegExp(
      `(?<![\\w$.])${escape(name)}\\s*(?::[^=;,(){}]+)?=\\s*(?:["'\`]|\\d|Duration\\s*\\.\\s*\\w+\\(\\s*["'\\d])`
    )
      .test(code)
}

// ------------------------------------------------------------------------------------------------------------ uses

/** `import … from "` with what stands between; the specifier is in the text, at the same place. */
const imports = /^[ \t]*import\s+(?!type\b)([^"';]+?)\s+from\s+(["'])/gm

const usesOf = (code: string, text: string): ReadonlyArray<Use> => {
  const uses: Array<Use> = []
  for (const match of code.matchAll(imports)) {
    const start = match.index + match[0].length
    const specifier = text.slice(start, text.indexOf(match[2]!, start))
    const last = specifier.split("/").at(-1) ?? ""
    const namespace = /\*\s+as\s+([\w$]+)/.exec(match[1]!)?.[1]
    const named = Array.from(
      /\{([^}]*)\}/.exec(match[1]!)?.[1]?.matchAll(/(?<![\w$])(?!type\s)([\w$]+)(?:\s+as\s+([\w$]+))?/g) ?? [],
      ([, name, local]) => ({ name: name!, local: local ?? name! })
    )
    if (specifier === "effect") {
      for (const module of Object.keys(kinds)) {
        if (namespace !== undefined) uses.push(...membersOf(code, `${escape(namespace)}\\s*\\.\\s*${module}`, module))
      }
      for (const { local, name } of named) if (name in kinds) uses.push(...membersOf(code, escape(local), name))
    } else if (specifier.startsWith("effect/") && last in kinds) {
      if (namespace !== undefined) uses.push(...membersOf(code, escape(namespace), last))
      for (const { name } of named) {
        const kind = kinds[last]?.[name]
        if (kind !== undefined) {
          uses.push({ at: match.index, what: `${last}.${name} by its own name`, kind, values: undefined })
        }
      }
    }
  }
  return uses
}

/** The uses of a module's members; of one that is taken apart or asked by a text nobody can tell, so it is none of ours. */
const membersOf = (code: string, local: string, module: string): ReadonlyArray<Use> => {
  const members = Array.from(
    code.matchAll(new RegExp(`(?<![\\w$.])${local}\\s*\\.\\s*([\\w$]+)`, "g")),
    (match): ReadonlyArray<Use> => {
      const kind = kinds[module]?.[match[1]!]
      return kind === undefined
        ? []
        : [{
          at: match.index,
          what: `${module}.${match[1]!}`,
          kind,
          values: argumentsAt(code, match.index + match[0].length)
        }]
    }
  ).flat()
  const hidden = Array.from(
    code.matchAll(new RegExp(`(?<![\\w$.])${local}\\s*\\[|\\}\\s*=\\s*${local}(?![\\w$]|\\s*\\.)`, "g")),
    (match): Use => ({
      at: match.index,
      what: `${module} taken apart`,
      kind: module === "Schedule" ? "schedule" : "retry",
      values: undefined
    })
  )
  return [...members, ...hidden]
}

/** The timers of JavaScript itself. A method of that name is something else. */
const timersOf = (code: string): ReadonlyArray<Use> =>
  Array.from(
    code.matchAll(/(?<![\w$.])(setTimeout|setInterval)\s*\(/g),
    (match) => ({ at: match.index, what: match[1]!, kind: "pause", values: undefined })
  )

/** The arguments of the call that begins here; undefined when none does. */
const argumentsAt = (code: string, at: number): ReadonlyArray<string> | undefined => {
  const open = /^\s*(?:<[^()]*>)?\s*\(/.exec(code.slice(at))
  if (open === null) return undefined
  const start = at + open[0].length
  let depth = 1
  let end = start
  while (end < code.length && depth > 0) {
    if (/[([{]/.test(code[end]!)) depth++
    else if (/[)\]}]/.test(code[end]!)) depth--
    end++
  }
  return partsOf(code.slice(start, end - 1))
}

/** Splits at the commas that stand in no bracket. The last part is left out when it is empty. */
const partsOf = (code: string): ReadonlyArray<string> => {
  const parts: Array<string> = []
  let depth = 0
  let start = 0
  for (let at = 0; at < code.length; at++) {
    if (/[([{]/.test(code[at]!)) depth++
    else if (/[)\]}]/.test(code[at]!)) depth--
    else if (code[at] === "," && depth === 0) {
      parts.push(code.slice(start, at))
      start = at + 1
    }
  }
  const last = code.slice(start)
  return last.trim() === "" ? parts : [...parts, last]
}

const escape = (name: string): string => name.replaceAll("$", "\\$")

const lineAt = (code: string, at: number): number =>
  code.slice(0, at + /^\s*/.exec(code.slice(at))![0].length).split("\n").length

// ------------------------------------------------------------------------------------------------------------ code

/** The text without its comments and without what stands in quotes; every other character stays where it is. */
export const codeOf = (text: string): string => {
  const code = text.split("")
  /** Depths of braces at which the code in a template ends and its text goes on. */
  const holes: Array<number> = []
  let depth = 0
  let at = 0
  const blankTo = (end: number) => {
    for (; at < end && at < code.length; at++) if (code[at] !== "\n") code[at] = " "
  }
  /** Goes past a text to the mark that ends it. */
  const skipTo = (ends: ReadonlyArray<string>): string | undefined => {
    while (at < text.length) {
      const end = ends.find((end) => text.startsWith(end, at))
      if (end !== undefined) {
        at += end.length
        return end
      }
      blankTo(at + (text[at] === "\\" ? 2 : 1))
    }
    return undefined
  }
  const template = () => {
    if (skipTo(["`", "${"]) === "${") holes.push(depth)
  }
  const pattern = () => {
    let inClass = false
    at++
    while (at < text.length && text[at] !== "\n" && (inClass || text[at] !== "/")) {
      if (text[at] === "[") inClass = true
      if (text[at] === "]") inClass = false
      blankTo(at + (text[at] === "\\" ? 2 : 1))
    }
    at++
  }
  while (at < text.length) {
    const char = text[at]!
    if (text.startsWith("//", at)) blankTo(indexOr(text, "\n", at))
    else if (text.startsWith("/*", at)) blankTo(indexOr(text, "*/", at + 2) + 2)
    else if (char === "/" && beginsPattern(code, at)) pattern()
    else {
      at++
      if (char === "\"" || char === "'") skipTo([char, "\n"])
      else if (char === "`") template()
      else if (char === "{") depth++
      else if (char === "}" && holes.at(-1) === depth) {
        holes.pop()
        template()
      } else if (char === "}") depth--
    }
  }
  return code.join("")
}

const indexOr = (text: string, what: string, from: number): number => {
  const found = text.indexOf(what, from)
  return found < 0 ? text.length : found
}

/** A slash after a value divides it; after anything else it begins a pattern. */
const beginsPattern = (code: ReadonlyArray<string>, at: number): boolean => {
  const before = code.slice(Math.max(0, at - 20), at).join("").trimEnd()
  return /(?:^|[(,=:[!&|?{};+\-*%~^<>]|\b(?:return|typeof|case|of|in))$/.test(before)
}

// ------------------------------------------------------------------------------------------------------------ read

/** Reads what the rules are about in the repository at `root`. */
export const readSources = Effect.fn("readSources")(function*(root: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const packages = yield* fs.readDirectory(path.join(root, "packages"))
  const rooms = [...packages.sort().map((name) => `packages/${name}/src`), "scripts", "examples"]
  const read = Effect.fnUntraced(function*(room: string) {
    if (!(yield* fs.exists(path.join(root, room)))) return []
    const names = yield* fs.readDirectory(path.join(root, room), { recursive: true })
    return yield* Effect.forEach(
      names.filter((name) => /(?<!\.d)\.[cm]?[jt]sx?$/.test(name)).map((name) =>
        `${room}/${name.replaceAll("\\", "/")}`
      )
        .filter((file) => !exempt(file)),
      (file) => Effect.map(fs.readFileString(path.join(root, file)), (text): SourceFile => ({ path: file, text }))
    )
  })
  return (yield* Effect.forEach(rooms, read)).flat()
})

/** Said already, line by line. */
class WrittenByHand extends Schema.TaggedError<WrittenByHand>()("WrittenByHand", {}) {
  override readonly [Runtime.errorReported] = false
}

const main = Effect.gen(function*() {
  const path = yield* Path.Path
  const found = violations(yield* readSources(path.join(import.meta.dirname, "..")))
  for (const line of found) yield* Console.log(line)
  if (found.length > 0) return yield* new WrittenByHand()
})

if (import.meta.main) {
  main.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
}
