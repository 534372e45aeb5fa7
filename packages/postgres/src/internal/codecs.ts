/**
 * Binary codecs for the PostgreSQL types that the driver reads inexactly or not at all. Layouts follow PostgreSQL's
 * own `*_send` and `*_recv` functions; every integer is big-endian.
 */
import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Result from "effect/Result"
import type { Range, RangeBounds } from "../PostgresTypes.ts"
import * as Timestamp from "../Timestamp.ts"

const fail = (message: string): Result.Result<never, PgTypes.CodecError> =>
  Result.fail(new PgTypes.CodecError({ message }))

/** Creating a `DataView` costs more than one read through it, and the values of one network chunk share a buffer. */
let lastView: DataView = new DataView(new ArrayBuffer(0))
const viewOf = (bytes: Uint8Array): DataView =>
  lastView.buffer === bytes.buffer && lastView.byteOffset === bytes.byteOffset &&
    lastView.byteLength === bytes.byteLength
    ? lastView
    : lastView = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const minInt64 = -9223372036854775808n
const maxInt64 = 9223372036854775807n

/** A type whose values all have eight bytes, given as the signed integer that those bytes are. */
interface Word<A> {
  readonly name: string
  readonly fromInt64: (word: bigint) => A
  readonly toInt64: (value: A) => bigint | undefined
}

const wordCodec = <A>(word: Word<A>): PgTypes.Codec<A> => {
  const read = (bytes: Uint8Array, offset: number, size: number) =>
    size === 8
      ? Result.succeed(word.fromInt64(viewOf(bytes).getBigInt64(offset)))
      : fail(`Expected 8 bytes for ${word.name}, received ${size}`)
  const outOfRange = (value: A) => fail(`Not a ${word.name}: ${String(value)}`)
  return {
    read,
    decode: (bytes) => read(bytes, 0, bytes.length),
    write: (sink, value) => {
      const int64 = word.toInt64(value)
      return int64 === undefined ? outOfRange(value) : Result.succeed(sink.bigInt64(int64))
    },
    encode: (value) => {
      const int64 = word.toInt64(value)
      if (int64 === undefined) return outOfRange(value)
      const bytes = new Uint8Array(8)
      new DataView(bytes.buffer).setBigInt64(0, int64)
      return Result.succeed(bytes)
    }
  }
}

/** PostgreSQL counts microseconds from 2000-01-01T00:00:00Z. */
const epochMicros = 946_684_800_000_000n

const timestamptzWord: Word<Timestamp.Timestamp> = {
  name: "timestamptz",
  fromInt64: (word) =>
    word === maxInt64
      ? Timestamp.infinity
      : word === minInt64
      ? Timestamp.negativeInfinity
      : Timestamp.fromMicros(word + epochMicros),
  toInt64: (value) => {
    if (typeof value !== "bigint") return undefined
    if (value === Timestamp.infinity) return maxInt64
    if (value === Timestamp.negativeInfinity) return minInt64
    return Timestamp.isStorable(value) ? value - epochMicros : undefined
  }
}

const int8Word: Word<bigint> = {
  name: "int8",
  fromInt64: (word) => word,
  toInt64: (value) => typeof value === "bigint" && value >= minInt64 && value <= maxInt64 ? value : undefined
}

/** `timestamptz` ↔ `Timestamp`. */
export const timestamptz = wordCodec(timestamptzWord)

/** `xid8` ↔ `bigint`. */
export const xid8 = wordCodec<bigint>({
  name: "xid8",
  fromInt64: (word) => BigInt.asUintN(64, word),
  toInt64: (value) =>
    typeof value === "bigint" && value >= 0n && value < 1n << 64n ? BigInt.asIntN(64, value) : undefined
})

const lsnPattern = /^([0-9a-f]{1,8})\/([0-9a-f]{1,8})$/i

/** `pg_lsn` ↔ text such as `16/B374D848`. */
export const pgLsn = wordCodec<string>({
  name: "pg_lsn",
  fromInt64: (word) => {
    const lsn = BigInt.asUintN(64, word)
    return `${(lsn >> 32n).toString(16)}/${(lsn & 0xffffffffn).toString(16)}`.toUpperCase()
  },
  toInt64: (value) => {
    const match = lsnPattern.exec(String(value))
    return match === null ? undefined : BigInt.asIntN(64, (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`))
  }
})

const snapshotPattern = /^\d+:\d+:(\d+(,\d+)*)?$/

/** `pg_snapshot` ↔ text `xmin:xmax:xip,…`. */
export const pgSnapshot: PgTypes.Codec<string> = {
  decode: (bytes) => {
    const view = viewOf(bytes)
    if (bytes.length < 20 || bytes.length !== 20 + view.getInt32(0) * 8) return fail("Truncated pg_snapshot")
    const running = Array.from({ length: view.getInt32(0) }, (_, index) => view.getBigUint64(20 + index * 8))
    return Result.succeed(`${view.getBigUint64(4)}:${view.getBigUint64(12)}:${running.join(",")}`)
  },
  encode: (value) => {
    if (!snapshotPattern.test(value)) return fail(`Not a pg_snapshot: ${value}`)
    const numbers = value.split(/[:,]/).filter((digits) => digits !== "").map(BigInt)
    const bytes = new Uint8Array(4 + numbers.length * 8)
    const view = new DataView(bytes.buffer)
    view.setInt32(0, numbers.length - 2)
    numbers.forEach((number, index) => view.setBigUint64(4 + index * 8, number))
    return Result.succeed(bytes)
  }
}

/** The object identifiers of the system catalogues, and `xid`: an unsigned number of four bytes. */
export const uint32: PgTypes.Codec<number> = {
  decode: (bytes) =>
    bytes.length === 4 ? Result.succeed(viewOf(bytes).getUint32(0)) : fail("Expected 4 bytes for an object identifier"),
  encode: (value) => {
    const bytes = new Uint8Array(4)
    new DataView(bytes.buffer).setUint32(0, value)
    return Result.succeed(bytes)
  }
}

/** A type that nobody here reads: its bytes as PostgreSQL sends them. */
export const bytes: PgTypes.Codec<Uint8Array> = {
  decode: (value) => Result.succeed(value.slice()),
  encode: (value) => Result.succeed(value)
}

const rangeEmpty = 0x01
const rangeLowerInclusive = 0x02
const rangeUpperInclusive = 0x04
const rangeLowerUnbounded = 0x08
const rangeUpperUnbounded = 0x10

const boundsOf = (flags: number): RangeBounds =>
  (flags & rangeLowerInclusive) === 0
    ? (flags & rangeUpperInclusive) === 0 ? "()" : "(]"
    : (flags & rangeUpperInclusive) === 0
    ? "[)"
    : "[]"

const rangeCodec = <A>(element: Word<A>): PgTypes.Codec<Range<A>> => ({
  decode: (bytes) => {
    const view = viewOf(bytes)
    const flags = bytes[0] ?? rangeEmpty
    if ((flags & rangeEmpty) !== 0) return Result.succeed({ lower: undefined, upper: undefined, bounds: "empty" })
    const hasLower = (flags & rangeLowerUnbounded) === 0
    const hasUpper = (flags & rangeUpperUnbounded) === 0
    if (bytes.length !== 1 + (hasLower ? 12 : 0) + (hasUpper ? 12 : 0)) {
      return fail(`Truncated range of ${element.name}`)
    }
    return Result.succeed({
      lower: hasLower ? element.fromInt64(view.getBigInt64(5)) : undefined,
      upper: hasUpper ? element.fromInt64(view.getBigInt64(hasLower ? 17 : 5)) : undefined,
      bounds: boundsOf(flags)
    })
  },
  encode: (range) => {
    if (range.bounds === "empty") return Result.succeed(Uint8Array.of(rangeEmpty))
    const ends = [range.lower, range.upper].filter((end) => end !== undefined)
    const bytes = new Uint8Array(1 + ends.length * 12)
    const view = new DataView(bytes.buffer)
    bytes[0] = (range.lower === undefined ? rangeLowerUnbounded : range.bounds[0] === "[" ? rangeLowerInclusive : 0) |
      (range.upper === undefined ? rangeUpperUnbounded : range.bounds[1] === "]" ? rangeUpperInclusive : 0)
    for (const [index, end] of ends.entries()) {
      const int64 = element.toInt64(end)
      if (int64 === undefined) return fail(`Not a ${element.name}: ${String(end)}`)
      view.setInt32(1 + index * 12, 8)
      view.setBigInt64(5 + index * 12, int64)
    }
    return Result.succeed(bytes)
  }
})

/** `tstzrange` ↔ `Range<Timestamp>`. */
export const tstzrange = rangeCodec(timestamptzWord)

/** `int8range` ↔ `Range<bigint>`. */
export const int8range = rangeCodec(int8Word)
