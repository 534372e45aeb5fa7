/**
 * What the programs of this folder print: lines of JSON on standard output, a bar on a terminal's standard error.
 */
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

/** Prints a value as a line of JSON. Positions and numbers of facts are texts of digits. */
export const print = (value: unknown) =>
  Console.log(JSON.stringify(value, (_key, each: unknown) => typeof each === "bigint" ? String(each) : each))

/** Draws a bar on a terminal; elsewhere it says nothing. */
export const progressBar = (terminal: NodeJS.WriteStream) => {
  let drawn = ""
  return {
    show: (fraction: number, text: string) => {
      if (!terminal.isTTY) return
      const percent = Math.floor(Math.min(1, fraction) * 100)
      const done = Math.round(percent * 0.4)
      const line = `\r${"█".repeat(done)}${"░".repeat(40 - done)} ${percent} % ${text}\u001b[K`
      if (line !== drawn) terminal.write(line)
      drawn = line
    },
    clear: () => {
      if (terminal.isTTY && drawn !== "") terminal.write("\r\u001b[K")
    }
  }
}

/** The whole part of `a` in `b`, for a bar. */
export const fraction = (a: bigint, b: bigint): number => b <= 0n ? 1 : Number(a) / Number(b)

/** Where a program leaves the code it ends with. */
export const ExitCode = Context.Reference<(code: number) => void>("@strata/scripts/ExitCode", {
  defaultValue: () => (code) => {
    process.exitCode = code
  }
})

/** Lets the program end with a code, once everything is closed. */
export const exitWith = (code: number) => Effect.map(ExitCode, (leave) => leave(code))
