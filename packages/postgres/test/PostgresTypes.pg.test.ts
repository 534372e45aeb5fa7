import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Timestamp from "@strata/postgres/Timestamp"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Struct from "effect/Struct"

/** From 4713 BC to where microseconds since 1970 leave 64 bits. */
const instant = Schema.BigInt.check(
  Schema.isBetweenBigInt({ minimum: -210_866_803_200_000_000n, maximum: 9_223_372_036_854_775_806n })
)
const yearOne = -62_135_596_800_000_000n
const yearTenThousand = 253_402_300_800_000_000n

const timestamps = Schema.Array(Schema.Union([
  instant,
  Schema.Literals([Timestamp.infinity, Timestamp.negativeInfinity])
]))

const range = <A>(lower: A | undefined, upper: A | undefined, bounds: Pg.RangeBounds): Pg.Range<A> => ({
  lower,
  upper,
  bounds
})

layer(PostgresTest.layer({ options: { maxConnections: 3 } }), { excludeTestServices: true })("PostgresTypes", (it) => {
  const only = Effect.fnUntraced(function*<A>(query: Effect.Effect<ReadonlyArray<object>, A>) {
    const rows = yield* query
    return Struct.get(Object.assign({ value: undefined as unknown }, rows[0]), "value")
  })

  it.effect("an instant keeps its microseconds", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      assert.strictEqual(
        yield* only(sql`select '2023-03-23T22:40:03.123456Z'::timestamptz as value`),
        1679611203123456n
      )
      assert.strictEqual(
        yield* only(sql`select ${Pg.timestamptz(Timestamp.fromMicros(1679611203123456n))}::text as value`),
        "2023-03-23 22:40:03.123456+00"
      )
    }))

  it.effect("infinities are exact", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      assert.strictEqual(yield* only(sql`select 'infinity'::timestamptz as value`), Timestamp.infinity)
      assert.strictEqual(yield* only(sql`select '-infinity'::timestamptz as value`), Timestamp.negativeInfinity)
      assert.strictEqual(yield* only(sql`select ${Pg.timestamptz(Timestamp.infinity)}::text as value`), "infinity")
    }))

  it.effect.prop(
    "every instant comes back as it was, alone and in an array",
    [timestamps],
    ([values]) =>
      Effect.gen(function*() {
        const { sql } = yield* Postgres
        const instants = values.map(Timestamp.fromMicros)
        assert.deepStrictEqual(yield* only(sql`select ${Pg.timestamptzArray(instants)} as value`), instants)
        const first = instants[0] ?? Timestamp.infinity
        assert.deepStrictEqual(yield* only(sql`select ${Pg.timestamptz(first)} as value`), first)
        // PostgreSQL reads no sign before a year.
        if (first < yearOne || first >= yearTenThousand) return
        assert.isTrue(
          yield* only(sql`select ${Pg.timestamptz(first)} = ${Timestamp.format(first)}::timestamptz as value`)
        )
      }),
    { arbitrary: { runs: 60 } }
  )

  it.effect("a transaction id is a bigint", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      assert.strictEqual(yield* only(sql`select '18446744073709551615'::xid8 as value`), 18446744073709551615n)
      assert.strictEqual(
        yield* only(sql`select ${Pg.xid8(18446744073709551615n)}::text as value`),
        "18446744073709551615"
      )
      assert.typeOf(yield* only(sql`select pg_current_xact_id() as value`), "bigint")
      assert.deepStrictEqual(yield* only(sql`select array['7'::xid8, null] as value`), [7n, null])
    }))

  it.effect("a range keeps its ends and what they include", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const [early, late] = [Timestamp.fromMicros(1n), Timestamp.fromMicros(1679611203123456n)]
      for (
        const value of [
          range(early, late, "[)"),
          range(early, late, "[]"),
          range(early, late, "(]"),
          range(early, late, "()"),
          range(early, Timestamp.infinity, "[)"),
          range<Timestamp.Timestamp>(early, undefined, "[)"),
          range<Timestamp.Timestamp>(undefined, late, "(]"),
          range<Timestamp.Timestamp>(undefined, undefined, "()"),
          range<Timestamp.Timestamp>(undefined, undefined, "empty")
        ]
      ) {
        assert.deepStrictEqual(yield* only(sql`select ${Pg.tstzrange(value)} as value`), value)
      }
      assert.deepStrictEqual(yield* only(sql`select int8range(3, 5, '[]') as value`), range(3n, 6n, "[)"))
      assert.strictEqual(yield* only(sql`select ${Pg.int8range(range(1n, 4n, "(]"))}::text as value`), "[2,5)")
      assert.deepStrictEqual(
        yield* only(sql`select array[tstzrange('1970-01-01T00:00:00.000001Z', null)] as value`),
        [range(early, undefined, "[)")]
      )
    }))

  it.effect("log positions and snapshots are text", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      assert.strictEqual(yield* only(sql`select '16/B374D848'::pg_lsn as value`), "16/B374D848")
      assert.strictEqual(yield* only(sql`select '10:20:10,14,15'::pg_snapshot as value`), "10:20:10,14,15")
      assert.strictEqual(yield* only(sql`select '10:10:'::pg_snapshot as value`), "10:10:")
    }))

  it.effect("arrays may be empty, hold nulls, or hold nothing else", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const id = "0193b5b0-7bd4-7000-8000-000000000001"
      assert.deepStrictEqual(yield* only(sql`select ${Pg.textArray([])} as value`), [])
      assert.deepStrictEqual(yield* only(sql`select ${Pg.textArray([null])} as value`), [null])
      assert.deepStrictEqual(yield* only(sql`select ${Pg.textArray(["a", null, "{\"'é"])} as value`), [
        "a",
        null,
        "{\"'é"
      ])
      assert.deepStrictEqual(yield* only(sql`select ${Pg.bigintArray([1n, 2n ** 40n, null])} as value`), [
        1n,
        2n ** 40n,
        null
      ])
      assert.deepStrictEqual(yield* only(sql`select ${Pg.intArray([1, -2])} as value`), [1, -2])
      assert.deepStrictEqual(yield* only(sql`select ${Pg.uuidArray([id, null])} as value`), [id, null])
      assert.deepStrictEqual(yield* only(sql`select ${Pg.jsonbArray([{ a: 1 }, null])} as value`), [{ a: 1 }, null])
      assert.deepStrictEqual(
        yield* only(sql`select ${Pg.textArray(["{\"a\": 1}", "[]"])}::jsonb[] as value`),
        [{ a: 1 }, []]
      )
      assert.deepStrictEqual(yield* only(sql`select ${Pg.jsonText("{\"a\":1}")}::jsonb as value`), { a: 1 })
    }))

  it.effect("every built-in type can be read without losing the connection", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      yield* sql`
        select
          '(1,2)'::point as a, '08:00:2b:01:02:03'::macaddr as b, b'101' as c, 'a & b'::tsquery as d, 'a b'::tsvector as e,
          int4range(1, 5) as f, daterange('2020-01-01', null) as g, numrange(1.5, 2) as h, int8multirange(int8range(1, 5)) as i,
          12::money as j, 'pg_class'::regclass as k, 'int4'::regtype as l, '(1,2)'::tid as m, row(1, 'x') as n,
          '$.a'::jsonpath as o, '(0,0),(1,1)'::box as p, '<(1,1),2>'::circle as q, array['a b'::tsvector] as r
      `
      assert.strictEqual(yield* only(sql`select 1 as value`), 1)
    }))

  it.effect("a value that is no instant is refused before it is sent", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const error = yield* Effect.flip(
        sql`select ${Pg.timestamptz(Timestamp.fromMicros(-(2n ** 62n)))} as value`
      )
      assert.include(String(error.reason.cause), "Not a timestamptz")
    }))
})
