/**
 * Who calls, and what they may do.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Schema from "effect/Schema"

/**
 * What a caller may do: `viewer` reads, `operator` also carries out commands, `corrector` also corrects and retracts
 * facts, `admin` does everything. Roles do not contain each other, but for `admin`, who has them all, and for
 * reading, which every role may.
 *
 * @category models
 * @since 0.1.0
 */
export const Role = Schema.Literals(["viewer", "operator", "corrector", "admin"]).annotate({
  identifier: "Role",
  description: "viewer reads, operator carries out commands, corrector corrects facts, admin does everything"
})
export type Role = typeof Role.Type

/**
 * A caller whose credential was accepted.
 *
 * @category models
 * @since 0.1.0
 */
export const Principal = Schema.Struct({
  subject: Schema.String.annotate({ description: "Who it is: the actor of the facts they cause" }),
  tenant: Schema.String.annotate({ description: "Whose data they work on" }),
  roles: Schema.Array(Role)
}).annotate({ identifier: "Principal" })
export type Principal = typeof Principal.Type

/**
 * True when the principal may do what the role may.
 *
 * @category guards
 * @since 0.1.0
 */
export const mayActAs = (principal: Principal, role: Role): boolean =>
  principal.roles.length > 0 && role === "viewer" || principal.roles.includes(role) || principal.roles.includes("admin")

/**
 * The caller of the current request.
 *
 * @category services
 * @since 0.1.0
 */
export class CurrentPrincipal extends Context.Service<CurrentPrincipal, Principal>()(
  "@strata/http-api/Principal/CurrentPrincipal"
) {}

/**
 * The role an endpoint asks for, as an annotation of it.
 *
 * @category annotations
 * @since 0.1.0
 */
export const RequiredRole = Context.Reference<Role>("@strata/http-api/Principal/RequiredRole", {
  defaultValue: () => "viewer"
})
