/**
 * What the role of the sessions may do with the tables of a schema, after a run of the migrations.
 *
 * **Details**
 *
 * Only what differs is changed, so a run that finds everything granted writes nothing. The role gets no right that
 * passes by row-level security: neither `truncate`, nor `references`, nor `trigger`.
 *
 * @since 0.1.0
 */
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { identifier } from "./MigrationsLedger.ts"

/**
 * A right on a table.
 *
 * @category models
 * @since 0.1.0
 */
export type Privilege = "select" | "insert" | "update" | "delete"

/**
 * Rights by table. A table that is not named gets all four when it is new to the role, and keeps what it has otherwise.
 *
 * @category models
 * @since 0.1.0
 */
export type Privileges = Readonly<Record<string, ReadonlyArray<Privilege>>>

const every: ReadonlyArray<Privilege> = ["select", "insert", "update", "delete"]

/**
 * Grants the role what it needs. The session is that of the tables' owner; what belongs to others is left alone.
 *
 * @category constructors
 * @since 0.1.0
 */
export const grant = Effect.fn("Migrations.grant")(function*(
  connection: PgConnection.PgConnection,
  schema: string,
  role: string,
  { makesSchemas, privileges: named }: { readonly privileges: Privileges; readonly makesSchemas: boolean }
) {
  const { exempt, own } = yield* describe(connection, role)
  if (own) return
  if (exempt) {
    yield* Effect.logWarning(`The role ${role} is exempt from row-level security: it sees every tenant's rows`)
  }
  const to = identifier(role)
  const granted = yield* Effect.map(connection.query(missingQuery, [schema, role, makesSchemas]), ({ rows }) => rows)
  const statements = (yield* Effect.orDie(decodeMissing(granted))).map(({ object, right }) =>
    `grant ${right} on ${object} to ${to}`
  )
  const { rows } = yield* connection.query(tablesQuery, [schema, role])
  for (const { has, name, table } of yield* Effect.orDie(decodeTables(rows))) {
    const wanted = name === "migration" ? ["select"] : named[name] ?? (has.length === 0 ? every : has)
    const extra = has.filter((privilege) => !wanted.includes(privilege))
    const missing = wanted.filter((privilege) => !has.includes(privilege))
    if (extra.length > 0) statements.push(`revoke ${extra.join(", ")} on ${table} from ${to}`)
    if (missing.length > 0) statements.push(`grant ${missing.join(", ")} on ${table} to ${to}`)
  }
  yield* Effect.forEach(statements, (statement) => connection.query(statement), { discard: true })
})

const describe = Effect.fnUntraced(function*(connection: PgConnection.PgConnection, role: string) {
  const { rows: [found] } = yield* connection.query(
    "select rolname = current_user as own, rolsuper or rolbypassrls as exempt from pg_roles where rolname = $1",
    [role]
  )
  return { own: found?.["own"] === true, exempt: found?.["exempt"] === true }
})

// The schema, its sequences and its functions, as far as the role may not use them yet. `case` asks of sequences only.
const missingQuery = `
  with schema as (select oid, nspname from pg_namespace where nspname = $1)
  select 'usage' as "right", format('schema %I', nspname) as object
  from schema
  where not has_schema_privilege($2, oid, 'usage')
  union all
  select 'create', format('schema %I', nspname)
  from schema
  where $3::boolean and not has_schema_privilege($2, oid, 'create')
  union all
  select 'create', format('database %I', current_database())
  where $3::boolean and not has_database_privilege($2, current_database(), 'create')
  union all
  select 'usage', format('sequence %s', c.oid::regclass)
  from pg_class c
  join schema on schema.oid = c.relnamespace
  where pg_has_role(c.relowner, 'usage')
    and case when c.relkind = 'S' then not has_sequence_privilege($2, c.oid, 'usage') else false end
  union all
  select 'execute', format('routine %s', p.oid::regprocedure)
  from pg_proc p
  join schema on schema.oid = p.pronamespace
  where pg_has_role(p.proowner, 'usage') and not has_function_privilege($2, p.oid, 'execute')`

// What the role itself was granted; what comes to it by membership is not counted.
const tablesQuery = `
  select
    c.relname::text as name, c.oid::regclass::text as "table",
    array(
      select lower(a.privilege_type) from aclexplode(c.relacl) a join pg_roles r on r.oid = a.grantee
      where r.rolname = $2
    ) as has
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = $1 and c.relkind in ('r', 'p') and pg_has_role(c.relowner, 'usage')
  order by 1`

const decodeMissing = Schema.decodeUnknownEffect(
  Schema.Array(Schema.Struct({ right: Schema.String, object: Schema.String }))
)

const decodeTables = Schema.decodeUnknownEffect(
  Schema.Array(Schema.Struct({ name: Schema.String, table: Schema.String, has: Schema.Array(Schema.String) }))
)
