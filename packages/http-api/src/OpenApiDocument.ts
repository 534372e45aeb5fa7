/**
 * Makes the generated OpenAPI document readable: components have the names of their schemas, query parameters the types
 * their text stands for, times say what they are, and there is nothing that only Effect's own client understands.
 *
 * @since 0.1.0
 */
import * as Equal from "effect/Equal"
import * as Predicate from "effect/Predicate"
import type * as Schema from "effect/Schema"

/**
 * Rewrites a generated document; to be given to the API as its `OpenApi.Transform`.
 *
 * @category transforming
 * @since 0.1.0
 */
export const readable = (document: Schema.JsonObject): Schema.JsonObject => rewrite(document, namesOf(document))

const prefix = "#/components/schemas/"

/** How Effect's own client reads a stream that breaks off, which no other one does. */
const ofEffect = "x-effect-stream"

const timestamp = {
  type: "string",
  format: "date-time",
  description: "ISO-8601 in UTC with microseconds, or infinity",
  examples: ["2026-01-31T10:00:00.000000Z"]
}

/** Query parameters that are whole numbers, whose bounds their text does not show. */
const numbers: Schema.JsonObject = {
  limit: { type: "integer", minimum: 1, maximum: 500 },
  offset: { type: "integer", minimum: 0, maximum: 10_000 },
  minVersion: { type: "integer", minimum: 1 },
  maxVersion: { type: "integer", minimum: 1 }
}

/** A wire form is generated as `NameEncoded`; it gets `Name` where that is free, or is the same. */
const namesOf = (document: Schema.JsonObject): ReadonlyMap<string, string> => {
  const schemas = member(member(document, "components"), "schemas")
  return new Map(
    Object.keys(schemas).flatMap((name) => {
      const plain = name.replace(/Encoded$/, "")
      const isTaken = plain in schemas && !Equal.equals(schemas[plain], schemas[name])
      return isTaken ? [] : [[name, plain] as const]
    })
  )
}

const member = (value: Schema.JsonObject, key: string): Schema.JsonObject => {
  const found = value[key]
  return isJsonObject(found) ? found : {}
}

const isJsonObject = (value: Schema.Json | undefined): value is Schema.JsonObject => Predicate.isObject(value)

const rewrite = (value: Schema.JsonObject, names: ReadonlyMap<string, string>): Schema.JsonObject =>
  Object.fromEntries(
    Object.entries(value).filter(([key]) => key !== ofEffect).map(([key, inner]) => {
      const name = names.get(key) ?? key
      if (key === "TimestampEncoded") return [name, timestamp]
      if (key === "$ref" && typeof inner === "string" && inner.startsWith(prefix)) {
        const target = inner.slice(prefix.length)
        return [key, `${prefix}${names.get(target) ?? target}`]
      }
      return [name, rewriteAny(inner, names)]
    })
  )

const rewriteAny = (value: Schema.Json, names: ReadonlyMap<string, string>): Schema.Json => {
  if (Array.isArray(value)) return value.map((inner) => rewriteAny(inner, names))
  if (!isJsonObject(value)) return value
  return value["in"] === "query" ? { ...rewrite(value, names), schema: parameter(value, names) } : rewrite(value, names)
}

/** Query text is generated as text; it is shown as what it is read as. */
const parameter = (value: Schema.JsonObject, names: ReadonlyMap<string, string>): Schema.JsonObject => {
  const schema = member(value, "schema")
  const number = numbers[String(value["name"])]
  if (isJsonObject(number)) return number
  if (String(schema["enum"]) === "true,false") return { type: "boolean" }
  return rewrite(schema, names)
}
