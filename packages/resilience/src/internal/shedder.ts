/**
 * Who is refused when a share of each class is to be.
 *
 * No dice: a share is paid off like a debt. Every request adds its percentage, and whoever reaches 100 is refused and owes
 * 100 less. So of 1000 requests at 25 % exactly 250 are refused, evenly spread (error diffusion, Floyd and Steinberg 1976).
 *
 * The share of a class is taken from the tenants that ask for most: each may keep as much as the others, and what they
 * leave over (max-min fairness). One that floods the class pays for it, and one that goes on as always notices nothing.
 */
import * as Hash from "effect/Hash"
import type { Priority } from "../scheduling/Priority.ts"
import * as ShedLadder from "../shedding/ShedLadder.ts"

export interface Shedder {
  /** True when this request is to be refused. */
  readonly sheds: (priority: Priority, tenant?: string, flow?: string) => boolean
  /** Sets the shares, and divides them anew by what each tenant asked for, `elapsed` milliseconds after the last time. */
  readonly balance: (shares: ShedLadder.Shares, elapsed: number) => void
}

interface Tenant {
  /** Below 100. */
  debt: number
  share: number
  /** Requests of the last seconds, and those not yet among them. */
  offered: number
  recent: number
}

/** Tenants with a record of their own, in each class. All others share one, with those who have no name. */
const maxTenants = 10_000

/** The last seconds count: as many milliseconds as those that make the load. */
const memory = 5000

export const make = (): Shedder => {
  const sharesOf = { ...ShedLadder.nothing }
  const tenantsOf: Record<Priority, Map<string, Tenant>> = {
    P0: new Map(),
    P1: new Map(),
    P2: new Map(),
    P3: new Map()
  }
  let newcomers = 0

  const record = (priority: Priority, name: string): Tenant => {
    const tenants = tenantsOf[priority]
    const known = tenants.get(name)
    if (known !== undefined) return known
    if (name !== "" && tenants.size >= maxTenants) return record(priority, "")
    // If they all began without debt, a new name for each request would never be refused.
    const debt = Math.floor(100 * ((newcomers++ * goldenRatio) % 1))
    const tenant: Tenant = { debt, share: sharesOf[priority], offered: 0, recent: 0 }
    tenants.set(name, tenant)
    return tenant
  }

  return {
    sheds: (priority, tenant = "", flow) => {
      if (priority === "P0") return false
      const asking = record(priority, tenant)
      asking.recent++
      if (asking.share === 0) return false
      if (flow !== undefined) return placeOf(flow) < asking.share
      asking.debt += asking.share
      if (asking.debt < 100) return false
      asking.debt -= 100
      return true
    },

    balance: (shares, elapsed) => {
      const kept = Math.exp(-elapsed / memory)
      for (const priority of ["P1", "P2", "P3"] as const) {
        sharesOf[priority] = shares[priority]
        divide(tenantsOf[priority], shares[priority], kept)
      }
    }
  }
}

/** The fractional parts of its multiples are as evenly spread as can be, however many there are. */
const goldenRatio = (Math.sqrt(5) - 1) / 2

/** Gives each tenant of a class its share of what is to be shed. Forgets those who are gone. */
const divide = (tenants: Map<string, Tenant>, share: number, kept: number): void => {
  for (const [name, tenant] of tenants) {
    tenant.offered = tenant.offered * kept + tenant.recent
    tenant.recent = 0
    if (tenant.offered < 0.01) tenants.delete(name)
  }
  const most = share === 0 ? Infinity : findMost(tenants, share)
  for (const tenant of tenants.values()) {
    // Rounded, so that a share which is the same for all is what the ladder says.
    tenant.share = tenant.offered > most ? Math.round(100 * (1 - most / tenant.offered) * 1e6) / 1e6 : 0
  }
}

/** The most a tenant may keep for `share` percent of all to be shed. */
const findMost = (tenants: Map<string, Tenant>, share: number): number => {
  const offered = Float64Array.from(tenants.values(), (tenant) => tenant.offered).sort()
  let left = offered.reduce((sum, one) => sum + one, 0) * (1 - share / 100)
  for (const [index, one] of offered.entries()) {
    const fair = left / (offered.length - index)
    if (one > fair) return fair
    left -= one
  }
  return Infinity
}

/** Where a flow stands between 0 and 100, the same for all of its steps. The finisher is MurmurHash3's. */
const placeOf = (flow: string): number => {
  let hash = Hash.string(flow)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32 * 100
}
