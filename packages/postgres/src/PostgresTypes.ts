/**
 * Values as PostgreSQL keeps them: the types the client reads, and parameters that say their type.
 *
 * **When to use**
 *
 * Use the constructors in SQL templates wherever the type of a parameter matters: an instant, an array that may be
 * empty or hold nulls, a number that must be a `bigint`.
 *
 * **Details**
 *
 * | PostgreSQL | here |
 * | --- | --- |
 * | `timestamptz` | `Timestamp`: microseconds as `bigint`, both infinities |
 * | `tstzrange`, `int8range` | `Range` |
 * | `xid8` | `bigint` |
 * | `pg_lsn`, `pg_snapshot` | text, as `psql` shows it |
 * | `xid`, `regproc`, `regtype`, … | number |
 * | `int8` | `bigint` |
 * | `numeric` | text |
 * | `json`, `jsonb` | the parsed value |
 * | geometric, network hardware, text search, bit, other range and multirange types | `Uint8Array`, undecoded |
 *
 * One-dimensional arrays of these work as well.
 *
 * **Gotchas**
 *
 * A composite type, or a binary type of an extension, has no codec: the driver takes its bytes for text and closes the
 * connection when they are none. Select such a column `::text`. `numeric` arrays and `date` follow the driver.
 *
 * **Example** (Inserting many rows by one statement)
 *
 * ```ts
 * import * as Pg from "@strata/postgres/PostgresTypes"
 *
 * sql`
 *   insert into readings (id, at, note)
 *   select * from unnest(${Pg.uuidArray(ids)}, ${Pg.timestamptzArray(instants)}, ${Pg.textArray(notes)})
 * `
 * ```
 *
 * @since 0.1.0
 */
import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as codecs from "./internal/codecs.ts"
import type { Timestamp } from "./Timestamp.ts"

/**
 * A value with its PostgreSQL type.
 *
 * @category models
 * @since 0.1.0
 */
export type Parameter = PgTypes.Parameter

/**
 * Which ends belong to a range. An unbounded end never does.
 *
 * @category models
 * @since 0.1.0
 */
export type RangeBounds = "[)" | "[]" | "(]" | "()" | "empty"

/**
 * A range; `undefined` is an unbounded end, which is not the same as an infinite one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Range<A> {
  readonly lower: A | undefined
  readonly upper: A | undefined
  readonly bounds: RangeBounds
}

const oid = {
  ...PgTypes.OID,
  xid8: 5069,
  xid8Array: 271,
  tstzrange: 3910,
  tstzrangeArray: 3911,
  int8range: 3926,
  int8rangeArray: 3927
} as const

/** xid, cid, regproc, regprocedure, regoper, regoperator, regtype, regrole, regnamespace, regconfig, regdictionary, regcollation. */
const identifierOids = [28, 29, 24, 2202, 2203, 2204, 2206, 4096, 4089, 3734, 3769, 4191]

/**
 * Built-in types whose bytes are not text: tid, point, lseg, path, box, polygon, line, circle, money, macaddr, macaddr8,
 * bit, varbit, tsvector, tsquery, int2vector, oidvector, txid_snapshot, record, jsonpath, int4range, numrange, tsrange,
 * daterange, and the six multirange types.
 */
const opaqueOids = [
  ...[27, 600, 601, 602, 603, 604, 628, 718, 790, 829, 774, 1560, 1562, 3614, 3615, 22, 30, 2970, 2249, 4072],
  ...[3904, 3906, 3908, 3912, 4451, 4532, 4533, 4534, 4535, 4536]
]

/**
 * The types of every Strata client.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeRegistry = (): PgTypes.Registry => {
  const registry = PgTypes.makeRegistry()
  for (const opaque of opaqueOids) registry.register(opaque, codecs.bytes)
  for (const identifier of identifierOids) registry.register(identifier, codecs.uint32)
  registry.register(oid.timestamptz, codecs.timestamptz, { arrayOid: oid.timestamptzArray })
  registry.register(oid.xid8, codecs.xid8, { arrayOid: oid.xid8Array })
  registry.register(oid.tstzrange, codecs.tstzrange, { arrayOid: oid.tstzrangeArray })
  registry.register(oid.int8range, codecs.int8range, { arrayOid: oid.int8rangeArray })
  registry.register(3220, codecs.pgLsn, { arrayOid: 3221 })
  registry.register(5038, codecs.pgSnapshot, { arrayOid: 5039 })
  return registry
}

/** A statement has a dozen: what they have in common is not put into each of them. */
class TypedValue implements Parameter {
  declare readonly [PgTypes.ParameterTypeId]: typeof PgTypes.ParameterTypeId
  readonly oid: number
  readonly value: unknown

  constructor(oid: number, value: unknown) {
    this.oid = oid
    this.value = value
  }
}
Object.assign(TypedValue.prototype, { [PgTypes.ParameterTypeId]: PgTypes.ParameterTypeId })

const parameter = <A>(oid: number) => (value: A | null): Parameter => new TypedValue(oid, value)

/** The array itself is the parameter: it is encoded straight into the frame, not copied. */
const array = <A>(oid: number): (values: ReadonlyArray<A | null>) => Parameter => parameter(oid)

/**
 * A `timestamptz`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const timestamptz = parameter<Timestamp>(oid.timestamptz)

/**
 * A `tstzrange`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const tstzrange = parameter<Range<Timestamp>>(oid.tstzrange)

/**
 * An `int8range`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const int8range = parameter<Range<bigint>>(oid.int8range)

/**
 * An `xid8`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const xid8 = parameter<bigint>(oid.xid8)

/**
 * A `bigint` (`int8`).
 *
 * @category parameters
 * @since 0.1.0
 */
export const bigint = parameter<bigint>(oid.int8)

/**
 * An `integer` (`int4`).
 *
 * @category parameters
 * @since 0.1.0
 */
export const int = parameter<number>(oid.int4)

/**
 * A `boolean`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const boolean = parameter<boolean>(oid.bool)

/**
 * A `double precision`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const double = parameter<number>(oid.float8)

/**
 * A `text`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const text = parameter<string>(oid.text)

/**
 * A `uuid`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const uuid = parameter<string>(oid.uuid)

/**
 * A `bytea`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const bytea = parameter<Uint8Array>(oid.bytea)

/**
 * A `jsonb`, written as JSON.
 *
 * @category parameters
 * @since 0.1.0
 */
export const jsonb = (value: unknown): Parameter => PgTypes.jsonb(value)

/**
 * JSON text that was written already. The server takes it as the type the statement asks for: `json` or `jsonb` by the
 * column or by a cast.
 *
 * @category parameters
 * @since 0.1.0
 */
export const jsonText = parameter<string>(0)

/**
 * A `timestamptz[]`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const timestamptzArray = array<Timestamp>(oid.timestamptzArray)

/**
 * A `bigint[]`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const bigintArray = array<bigint>(oid.int8Array)

/**
 * No `bigint[]` at all: null.
 *
 * @category parameters
 * @since 0.1.0
 */
export const noBigints = parameter<ReadonlyArray<bigint>>(oid.int8Array)(null)

/**
 * An `integer[]`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const intArray = array<number>(oid.int4Array)

/**
 * A `double precision[]`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const doubleArray = array<number>(oid.float8Array)

/**
 * A `boolean[]`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const booleanArray = array<boolean>(oid.boolArray)

/**
 * A `text[]`. For JSON that was written already, cast it: `${Pg.textArray(json)}::jsonb[]`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const textArray = array<string>(oid.textArray)

/**
 * A `uuid[]`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const uuidArray = array<string>(oid.uuidArray)

/**
 * A `bytea[]`.
 *
 * @category parameters
 * @since 0.1.0
 */
export const byteaArray = array<Uint8Array>(oid.byteaArray)

/**
 * A `jsonb[]`, each value written as JSON.
 *
 * @category parameters
 * @since 0.1.0
 */
export const jsonbArray = array<unknown>(oid.jsonbArray)
