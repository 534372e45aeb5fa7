/**
 * Which facts a durable subscription wants, and to which of its partitions each belongs.
 *
 * @since 0.1.0
 */
import * as Belief from "./Belief.ts"
import type { Fact } from "./Fact.ts"
import type { LogFilter } from "./FactQuery.ts"

/**
 * Everything that is given must hold; what is not given does not restrict.
 *
 * @category models
 * @since 0.1.0
 */
export type Filter = LogFilter

/**
 * True when the fact fits the filter. A revision fits like the fact that it revises.
 *
 * @category predicates
 * @since 0.1.0
 */
export const matches = ({ category, stream, tenant, types }: Filter): (fact: Fact) => boolean => {
  const fits = Belief.matches({ category, stream, types })
  return (fact) => (tenant === undefined || fact.tenant === tenant) && fits(fact)
}

/**
 * The partition of a key, from 0. The same in every process and version: checkpoints depend on it.
 *
 * 32-bit FNV-1a over UTF-16 code units (Fowler, Noll, Vo), finished like MurmurHash3, since the low bits of FNV alone are
 * spread badly over short keys.
 *
 * @category getters
 * @since 0.1.0
 */
export const partitionOf = (key: string, partitions: number): number => {
  if (partitions === 1) return 0
  let hash = 0x811c9dc5
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return ((hash ^ (hash >>> 16)) >>> 0) % partitions
}
