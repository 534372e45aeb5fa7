/**
 * Splits the text of an SQL file into its statements, since the driver takes one statement a call.
 *
 * **Details**
 *
 * Follows the lexical rules of PostgreSQL (chapter 4.1 of its manual, and `psqlscan.l` for where a statement ends):
 * quoted strings and identifiers, escape strings, dollar quotes, line and nested block comments, parentheses (as in
 * `create rule`), and the bodies between `begin atomic` and `end` of functions and procedures.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"

/**
 * One statement, without its semicolon and the blank lines around it.
 *
 * @category models
 * @since 0.1.0
 */
export interface SqlStatement {
  readonly text: string
  /** The line of the file on which it begins, from 1. */
  readonly line: number
  /** Its first word in lower case, comments aside. */
  readonly keyword: string
}

/**
 * Something was opened and never closed.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unterminated extends Data.TaggedError("Unterminated")<{
  readonly what: "string" | "quoted identifier" | "dollar quote" | "block comment"
  readonly line: number
}> {
  override get message(): string {
    return `The ${this.what} that begins on line ${this.line} does not end`
  }
}

/** One token at a time. An opening quote that matches alone has no end. */
const token = new RegExp(
  [
    /--[^\n]*/,
    /\/\*/,
    /[eE]'[^'\\]*(?:(?:\\[\s\S]|'')[^'\\]*)*'/,
    /[eE]'/,
    /'[^']*(?:''[^']*)*'/,
    /"[^"]*(?:""[^"]*)*"/,
    /\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/,
    /[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*/,
    /[0-9][A-Za-z0-9_.]*/,
    /\s+/,
    /[\s\S]/
  ].map((part) => part.source).join("|"),
  "y"
)

const blank = /^(?:\s|--)/
const word = /^[A-Za-z_\u0080-\uffff]/

/**
 * The statements of a file in their order; text that holds only blanks and comments is none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const split = (sql: string): Result.Result<ReadonlyArray<SqlStatement>, Unterminated> => {
  const statements: Array<SqlStatement> = []
  let statement = new Open()
  let position = 0
  while (position < sql.length) {
    const read = next(sql, position)
    if (Result.isFailure(read)) return Result.fail(read.failure)
    const text = read.success
    if (text === ";" && statement.mayEnd) {
      push(statements, sql, statement, position)
      statement = new Open()
    } else if (!isBlank(text)) {
      statement.take(text, position)
    }
    position += text.length
  }
  push(statements, sql, statement, sql.length)
  return Result.succeed(statements)
}

const isBlank = (text: string): boolean => blank.test(text) || text.startsWith("/*")

const push = (statements: Array<SqlStatement>, sql: string, statement: Open, end: number): void => {
  if (statement.start === undefined) return
  statements.push({
    text: sql.slice(statement.start, end).trimEnd(),
    line: lineAt(sql, statement.start),
    keyword: statement.words[0] ?? ""
  })
}

const lineAt = (sql: string, position: number): number => sql.slice(0, position).split("\n").length

/** The token at a position, quotes and comments whole. */
const next = (sql: string, position: number): Result.Result<string, Unterminated> => {
  token.lastIndex = position
  const text = token.exec(sql)?.[0] ?? ""
  const unterminated = (what: Unterminated["what"]) =>
    Result.fail(new Unterminated({ what, line: lineAt(sql, position) }))
  if (/^[eE]?'$/.test(text)) return unterminated("string")
  if (text === "\"") return unterminated("quoted identifier")
  if (text === "/*") {
    const end = endOfComment(sql, position)
    return end < 0 ? unterminated("block comment") : Result.succeed(sql.slice(position, end))
  }
  if (text.length > 1 && text.startsWith("$")) {
    const end = sql.indexOf(text, position + text.length)
    return end < 0 ? unterminated("dollar quote") : Result.succeed(sql.slice(position, end + text.length))
  }
  return Result.succeed(text)
}

const endOfComment = (sql: string, start: number): number => {
  const bracket = /\/\*|\*\//g
  bracket.lastIndex = start
  let depth = 0
  for (let match = bracket.exec(sql); match !== null; match = bracket.exec(sql)) {
    depth += match[0] === "/*" ? 1 : -1
    if (depth === 0) return bracket.lastIndex
  }
  return -1
}

/** The statement being read: how deep it is nested decides whether a semicolon ends it. */
class Open {
  start: number | undefined
  readonly words: Array<string> = []
  private parentheses = 0
  private blocks = 0

  get mayEnd(): boolean {
    return this.parentheses === 0 && this.blocks === 0
  }

  take(text: string, position: number): void {
    this.start ??= position
    if (text === "(") this.parentheses++
    if (text === ")" && this.parentheses > 0) this.parentheses--
    if (word.test(text) && !text.includes("'")) this.takeWord(text.toLowerCase())
  }

  private takeWord(text: string): void {
    if (this.words.length < 4) this.words.push(text)
    if (this.parentheses > 0 || !routine.test(this.words.join(" "))) return
    if (text === "begin" || (text === "case" && this.blocks > 0)) this.blocks++
    if (text === "end" && this.blocks > 0) this.blocks--
  }
}

const routine = /^create (?:or replace )?(?:function|procedure)\b/
