/**
 * Conditions on what facts hold, as a question has them and as they are judged. In PostgreSQL that is `fact_data_fits` in
 * `migrations/0010_questions.sql`.
 *
 * @since 0.1.0
 */
import * as Equal from "effect/Equal"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { DataCondition } from "./FactQuery.ts"
import * as Fields from "./Fields.ts"

/** Conditions of one question. */
const most = 16

const comparisons = ["equal", "above", "atLeast", "below", "atMost"]

/**
 * The condition that cannot be judged, if there is one.
 *
 * @category predicates
 * @since 0.1.0
 */
export const findProblem = (conditions: ReadonlyArray<DataCondition>): Fields.Problem | undefined => {
  if (!Array.isArray(conditions)) return { path: "data", message: "expected an array" }
  if (conditions.length === 0 || conditions.length > most) {
    return { path: "data", message: `expected 1 to ${most} conditions` }
  }
  for (const [index, condition] of conditions.entries()) {
    const path = `data[${index}]`
    if (!Fields.isObject(condition)) return { path, message: "expected path, is and value" }
    const { is, path: pointer, value } = condition
    if (!isPointer(pointer)) return { path: `${path}.path`, message: "expected a JSON Pointer, like /lines/0/sku" }
    if (!comparisons.includes(is)) return { path: `${path}.is`, message: `expected ${comparisons.join(" or ")}` }
    const json = Fields.toJsonb({ value }, `${path}.value`)
    if (Result.isFailure(json)) return json.failure
    if (!isJson(value)) return { path: `${path}.value`, message: "expected JSON" }
    if (is !== "equal" && typeof value !== "number" && typeof value !== "string") {
      return { path: `${path}.value`, message: "expected a number or a text, which have an order" }
    }
  }
  return undefined
}

const isJson = Schema.is(Schema.Json)

const isPointer = (text: unknown): text is string =>
  typeof text === "string" && text.length <= 1024 && /^(?:\/(?:[^~/]|~[01])*)*$/u.test(text) && text.isWellFormed() &&
  !text.includes("\0")

/**
 * The steps of a path.
 *
 * @category conversions
 * @since 0.1.0
 */
export const stepsOf = ({ path }: DataCondition): ReadonlyArray<string> =>
  path.split("/").slice(1).map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"))

/**
 * True of data that meets all conditions.
 *
 * @category predicates
 * @since 0.1.0
 */
export const fits = (conditions: ReadonlyArray<DataCondition>) => {
  const asked = conditions.map((condition) => ({ ...condition, steps: stepsOf(condition) }))
  return (data: Schema.Json): boolean =>
    Fields.isJsonbText(JSON.stringify(data)) && asked.every(({ is, steps, value }) => {
      const there = at(data, steps)
      return there !== undefined && compares(there, is, value)
    })
}

const at = (data: Schema.Json, steps: ReadonlyArray<string>): Schema.Json | undefined => {
  let there: Schema.Json | undefined = data
  for (const step of steps) {
    if (Array.isArray(there)) there = /^(?:0|[1-9][0-9]{0,8})$/.test(step) ? there[Number(step)] : undefined
    else if (Fields.isObject(there)) {
      there = Object.hasOwn(there as object, step)
        ? (there as Schema.JsonObject)[step]
        : undefined
    } else return undefined
  }
  return there
}

const compares = (there: Schema.Json, is: DataCondition["is"], value: Schema.Json): boolean => {
  if (is === "equal") return Equal.equals(there, value)
  const order = typeof there === "number" && typeof value === "number"
    ? there - value
    : typeof there === "string" && typeof value === "string"
    ? compareBytes(there, value)
    : undefined
  if (order === undefined) return false
  switch (is) {
    case "above":
      return order > 0
    case "atLeast":
      return order >= 0
    case "below":
      return order < 0
    case "atMost":
      return order <= 0
  }
}

const utf8 = new TextEncoder()

const compareBytes = (a: string, b: string): number => {
  const [first, second] = [utf8.encode(a), utf8.encode(b)]
  const differs = first.findIndex((byte, index) => byte !== second[index])
  return differs < 0 ? first.length - second.length : first[differs]! - (second[differs] ?? -1)
}
