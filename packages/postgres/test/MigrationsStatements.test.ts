import { assert, describe, it } from "@effect/vitest"
import * as Statements from "@strata/postgres/MigrationsStatements"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

const texts = (sql: string) => Result.getOrThrow(Statements.split(sql)).map((statement) => statement.text)

describe("MigrationsStatements.split", () => {
  it.each<[string, string, ReadonlyArray<string>]>([
    ["separates at semicolons", "select 1; select 2;\nselect 3", ["select 1", "select 2", "select 3"]],
    ["finds nothing in blanks, comments and lone semicolons", " -- a;\n/* b; */ ;; \n", []],
    ["keeps semicolons in strings", "select 'a;b', 'it''s;'; select 2", ["select 'a;b', 'it''s;'", "select 2"]],
    ["does not take a backslash in a plain string for an escape", "select 'a\\'; select 2", [
      "select 'a\\'",
      "select 2"
    ]],
    ["takes it for one in an escape string", "select e'a\\';b'; select 2", ["select e'a\\';b'", "select 2"]],
    ["reads an escape string only where a word begins", "select name'a\\'; select 2", ["select name'a\\'", "select 2"]],
    ["keeps semicolons in quoted identifiers", "select 1 as \"a;\"\"b\"; select 2", [
      "select 1 as \"a;\"\"b\"",
      "select 2"
    ]],
    ["keeps dollar quotes whole", "do $$ begin; end $$; select 2", ["do $$ begin; end $$", "select 2"]],
    ["keeps tagged dollar quotes whole", "do $a$ $$;$b$; $a$; select 2", ["do $a$ $$;$b$; $a$", "select 2"]],
    ["takes no dollar inside a name for a quote", "select a$b$c; select d$b$e", ["select a$b$c", "select d$b$e"]],
    ["takes a parameter for no quote", "select $1; select $2", ["select $1", "select $2"]],
    ["knows nested comments", "select /* a /* ; */ ; */ 1; select 2", ["select /* a /* ; */ ; */ 1", "select 2"]],
    ["keeps comments inside a statement", "select 1 -- x;\n + 1; select 2", ["select 1 -- x;\n + 1", "select 2"]],
    ["knows parentheses", "create rule r as on insert to t do also (a; b); select 2", [
      "create rule r as on insert to t do also (a; b)",
      "select 2"
    ]],
    [
      "knows the body of a routine",
      "create or replace function f() returns int begin atomic select case when true then 1 end; select 2; end; select 3",
      [
        "create or replace function f() returns int begin atomic select case when true then 1 end; select 2; end",
        "select 3"
      ]
    ],
    ["does not take other blocks for one", "select 1 as begin; select 2 as end", [
      "select 1 as begin",
      "select 2 as end"
    ]],
    ["accepts Unicode names", "select 1 as größe; select 2", ["select 1 as größe", "select 2"]]
  ])("%s", (_, sql, expected) => {
    assert.deepStrictEqual(texts(sql), expected)
  })

  it("tells line and first word of each statement", () => {
    const statements = Result.getOrThrow(Statements.split("-- first\nCREATE table a ();\n\n  /* x */ insert into a\n;"))
    assert.deepStrictEqual(statements, [
      { text: "CREATE table a ()", line: 2, keyword: "create" },
      { text: "insert into a", line: 4, keyword: "insert" }
    ])
  })

  it.each<[string, string]>([
    ["select 'a;", "string"],
    ["select e'a\\';", "string"],
    ["select \"a;", "quoted identifier"],
    ["do $x$ $$;", "dollar quote"],
    ["select 1 /* a /* b */;", "block comment"]
  ])("refuses %s", (sql, what) => {
    const error = Result.getOrThrow(Result.flip(Statements.split(`\n${sql}`)))
    assert.deepStrictEqual([error.what, error.line], [what, 2])
  })

  const piece = Schema.Literals([
    "select 1",
    "'a;''b'",
    "e'\\';'",
    "\"x;\"",
    "$$;'$$",
    "$t$;$$;$t$",
    "/* ; /* ' */ ; */",
    "-- ; '\n",
    "(a; b)",
    "name"
  ])

  it.effect.prop(
    "gives back the statements that were joined",
    [Schema.Array(Schema.Array(piece).check(Schema.isMinLength(1)))],
    ([statements]) =>
      Effect.sync(() => {
        // A word first, so that none consists of comments only.
        const joined = statements.map((pieces) => `select ${pieces.join(" ")}`)
        assert.deepStrictEqual(texts(joined.join("\n;\n")), joined.map((text) => text.trimEnd()))
      })
  )
})
