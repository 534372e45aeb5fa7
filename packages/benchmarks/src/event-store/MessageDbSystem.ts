/**
 * message-db: the tables and functions of its package, called through the driver most programs call them with.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as Redacted from "effect/Redacted"
import * as Crypto from "node:crypto"
import { createRequire } from "node:module"
import { BenchmarkError, failure } from "../Suite.ts"
import * as Server from "./Server.ts"
import type { Audit, System } from "./System.ts"
import * as Workload from "./Workload.ts"

/** In the order in which its installer takes them; roles, privileges and views are left out. */
const files = [
  "schema/message-store",
  "types/message",
  "tables/messages",
  "functions/message-store-version",
  "functions/hash-64",
  "functions/acquire-lock",
  "functions/category",
  "functions/is-category",
  "functions/id",
  "functions/cardinal-id",
  "functions/stream-version",
  "functions/write-message",
  "functions/get-stream-messages",
  "functions/get-category-messages",
  "functions/get-last-stream-message",
  "indexes/messages-id",
  "indexes/messages-stream",
  "indexes/messages-category"
]

/**
 * Installs it in a database, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const pool = yield* Server.nodePool(url, 32, "message_store,public")
  const query = <Row extends object>(name: string, text: string, values: ReadonlyArray<unknown>) =>
    Effect.tryPromise({
      try: () => pool.query<Row>({ name, text, values: [...values] }),
      catch: failure(`message-db ${name}`)
    })
      .pipe(Effect.map(({ rows }) => rows))

  const home = path.dirname(createRequire(import.meta.url).resolve("@eventide/message-db/package.json"))
  const scripts = yield* Effect.forEach(files, (file) => fs.readFileString(path.join(home, "database", `${file}.sql`)))
    .pipe(Effect.mapError(failure("Reading message-db's package")))
  yield* Effect.tryPromise({
    try: () => pool.query(scripts.join(";\n")),
    catch: failure("Installing message-db")
  })

  // The functions name each other without a schema. One statement for all facts of an append, each by a call.
  const append: System["append"] = (stream, version, facts) =>
    query(
      "write",
      `select message_store.write_message(m.id, $1, $2, m.data, m.metadata, $3::bigint + m.number - 1)
      from unnest($4::varchar[], $5::jsonb[], $6::jsonb[]) with ordinality as m(id, data, metadata, number)`,
      [
        stream,
        Workload.type,
        version === "any" ? null : version - 1,
        facts.map(() => Crypto.randomUUID()),
        facts.map(Workload.toJson),
        facts.map(() => Workload.toJson(Workload.metadata))
      ]
    ).pipe(Effect.asVoid)

  const readStream: System["readStream"] = (stream, length) =>
    query<{ position: string; data: string; metadata: string }>(
      "read",
      "select * from message_store.get_stream_messages($1, 0, 1000)",
      [stream]
    ).pipe(
      Effect.map((rows) =>
        rows.map(({ data, metadata, position }) => ({
          position: Number(position),
          data: Workload.fromJson(data),
          metadata: Workload.fromJson(metadata)
        }))
      ),
      Effect.flatMap((messages) =>
        messages.length === length && messages.every(({ position }, index) => position === index)
          ? Effect.void
          : Effect.fail(new BenchmarkError({ message: `message-db read ${messages.length} of ${length} facts` }))
      )
    )

  return {
    name: "message-db",
    append,
    readStream,
    head: query<{ head: string }>(
      "head",
      "select coalesce(max(global_position), 0) as head from message_store.messages",
      []
    )
      .pipe(Effect.map((rows) => BigInt(rows[0]!.head))),
    audit: (after) =>
      query<Audit>(
        "audit",
        `select count(*)::integer as facts, count(*) filter (where position <> nth - 1)::integer as misplaced
        from (
          select position, row_number() over (partition by stream_name order by global_position) as nth
          from message_store.messages
          where global_position > $1
        ) as m`,
        [after]
      ).pipe(Effect.map((rows) => rows[0]!))
  } satisfies System
})
