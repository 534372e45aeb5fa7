/**
 * A queue as it is meant to be, in memory: written to be read, with nothing of the queue's own code. Time is a number of hours that
 * passes only when somebody says so.
 */
import type { Stats } from "@strata/queues/QueueCatalog"

// --------------------------------------------------------------------------------------------------------- models

/** What may be set of a queue. */
export interface Settings {
  readonly maxAttempts: number
  readonly maxRunning?: number | undefined
  readonly maxRunningPerKey: number
  /** So many may begin at once, and one more each hour. */
  readonly burst?: number | undefined
  readonly burstPerKey?: number | undefined
  readonly maxDepth?: number | undefined
  readonly overflow: "refuse" | "dropLowest" | "spill"
}

export type State = "waiting" | "later" | "running" | "dead" | "done"

/** A message that somebody sends. */
export interface NewMessage {
  readonly n: number
  readonly priority: number
  readonly key: string | undefined
  /** Hours. */
  readonly delay: number
  readonly region: "eu" | "us"
  readonly unique: {
    readonly key: string
    readonly during: ReadonlyArray<State>
    /** Hours. */
    readonly window: number | undefined
    readonly replaces: boolean
  } | undefined
}

type Place = "ready" | "later" | "parked" | "leased" | "dead" | "gone"

interface Message extends NewMessage {
  readonly id: number
  place: Place
  attempts: number
  /** Its lease ran out, and it was not heard of since: it is claimed alone. */
  isSuspect: boolean
  due: number
}

interface Lease {
  until: number
  readonly messages: Set<Message>
}

/** What the database says became of messages that were sent; the ids are its own. */
export type Sent =
  | ReadonlyArray<{ readonly outcome: "inserted" | "replaced" | "skipped"; readonly id: number }>
  | "full"

export interface Claimed {
  readonly id: number
  readonly attempt: number
}

/** Those that are claimed under one lease, and those that are under one each. */
export interface Claim {
  readonly together: ReadonlyArray<Claimed>
  readonly alone: ReadonlyArray<Claimed>
}

/** What somebody says of a message it has claimed. */
export type Said =
  | { readonly _tag: "Ack" }
  | { readonly _tag: "Release" }
  | { readonly _tag: "Snooze"; readonly after: number }
  | { readonly _tag: "Nack"; readonly after: number; readonly givesUp: boolean }

// ---------------------------------------------------------------------------------------------------------- model

export class QueueModel {
  settings: Settings
  isPaused = false
  #now = 0
  #messages = new Map<number, Message>()
  #leases = new Map<string, Lease>()
  /** Who has begun, of each key. */
  #holders = new Map<string, Set<Message>>()
  #uniques = new Map<string, { readonly id: number; readonly until: number; readonly during: ReadonlyArray<State> }>()
  /** When what has begun will have been allowed by the rate: of the queue, and of each key. */
  #allowedAt = -Infinity
  #keyAllowedAt = new Map<string, number>()
  #sent = 0
  #done = 0
  #failed = 0

  constructor(settings: Settings) {
    this.settings = settings
  }

  // ----------------------------------------------------------------------------------------------------- looking

  get stats(): Stats {
    return {
      ready: this.#at("ready").length,
      later: this.#at("later").length,
      parked: this.#at("parked").length,
      leased: this.#at("leased").length,
      dead: this.#at("dead").length,
      sent: this.#sent,
      done: this.#done,
      failed: this.#failed
    }
  }

  /** Those that may be claimed, in the order in which they are. */
  get order(): ReadonlyArray<number> {
    return this.#at("ready").sort(byUrgency).map(({ id }) => id)
  }

  get dead(): ReadonlyArray<number> {
    return this.#at("dead").map(({ id }) => id)
  }

  // ----------------------------------------------------------------------------------------------------- sending

  /** What became of messages of one call: true when it is what had to. */
  send(messages: ReadonlyArray<NewMessage>, sent: Sent): boolean {
    const { maxDepth = Infinity, overflow } = this.settings
    const depth = this.#at("ready").length + this.#at("later").length + this.#at("parked").length
    const over = depth + messages.length - maxDepth
    if (over > 0 && overflow !== "spill" && !(overflow === "dropLowest" && this.#drop(over, messages))) {
      return sent === "full"
    }
    return sent !== "full" && sent.length === messages.length &&
      messages.every((message, index) => this.#sendOne(message, over > 0 && overflow === "spill", sent[index]!))
  }

  #sendOne(
    message: NewMessage,
    isSpilled: boolean,
    { id, outcome }: Exclude<Sent, "full">[number]
  ): boolean {
    const { delay, unique } = message
    let expected = "inserted"
    if (unique !== undefined) {
      const other = this.#uniques.get(unique.key)
      const state = other === undefined ? "done" : this.#stateOf(other.id)
      if (other !== undefined && other.until > this.#now && unique.during.includes(state)) {
        const isReplaced = unique.replaces && (state === "waiting" || state === "later")
        if (!isReplaced) return outcome === "skipped" && id === other.id
        this.withdraw(other.id)
        expected = "replaced"
      }
      const until = unique.window === undefined ? Infinity : this.#now + unique.window
      this.#uniques.set(unique.key, { id, until, during: unique.during })
    }
    const isLater = delay > 0 || isSpilled
    this.#messages.set(id, {
      ...message,
      id,
      place: isLater ? "later" : "ready",
      attempts: 0,
      isSuspect: false,
      due: this.#now + delay
    })
    this.#sent++
    return outcome === expected && [...this.#messages.keys()].every((other) => other <= id)
  }

  /** The youngest of the least urgent make room, if enough of them are less urgent than all that comes. */
  #drop(count: number, messages: ReadonlyArray<NewMessage>): boolean {
    const least = Math.min(...messages.map(({ priority }) => priority))
    const below = this.#at("ready")
      .filter(({ priority }) => priority < least)
      .sort((one, other) => one.priority - other.priority || other.id - one.id)
      .slice(0, count)
    if (below.length < count) return false
    for (const message of below) message.place = "dead"
    this.#end(below, "dead")
    return true
  }

  #stateOf(id: number): State {
    switch (this.#messages.get(id)?.place) {
      case "later":
        return "later"
      case "ready":
      case "parked":
        return "waiting"
      case "leased":
        return "running"
      case "dead":
        return "dead"
      default:
        return "done"
    }
  }

  // ---------------------------------------------------------------------------------------------------- claiming

  /** What a claim gives. The database has tokens for it: see `lease`. */
  claim(limit: number, region: "eu" | "us" | undefined): Claim {
    if (this.isPaused) return { together: [], alone: [] }
    for (const message of this.#at("later")) {
      if (message.due <= this.#now) Object.assign(message, { place: "ready", isSuspect: false })
    }
    const { burst = Infinity, maxRunning = Infinity } = this.settings
    const ahead = Math.max(0, this.#allowedAt - this.#now)
    const room = Math.max(0, Math.min(limit, maxRunning - this.#at("leased").length, burst - ahead))
    const wanted = (isSuspect: boolean) =>
      this.#at("ready")
        .filter((message) => message.isSuspect === isSuspect && (region === undefined || message.region === region))
        .sort(byUrgency)

    const alone = wanted(true).slice(0, room)
    for (const message of alone) begin(message)
    const together: Array<Message> = []
    for (;;) {
      const batch = wanted(false).slice(0, room - alone.length - together.length)
      for (const message of batch) begin(message)
      const admitted = batch.filter(({ key }) => key === undefined)
      for (const message of batch.filter(({ key }) => key !== undefined).sort(byAge)) {
        if (this.#admit(message)) admitted.push(message)
      }
      together.push(...admitted)
      if (admitted.length === batch.length) break
    }
    if (this.settings.burst !== undefined) {
      this.#allowedAt = this.#now + ahead + alone.length + together.length
    }
    const claimed = ({ attempts, id }: Message) => ({ id, attempt: attempts })
    return { together: together.sort(byUrgency).map(claimed), alone: alone.sort(byAge).map(claimed) }
  }

  /** Whether a message may begin as far as its key goes. If not, it is put aside. */
  #admit(message: Message): boolean {
    const key = message.key!
    const holders = this.#holders.get(key) ?? new Set()
    const others = [...this.#messages.values()].filter((other) => other.key === key && other.id < message.id)
    const isBehind = !holders.has(message) && (
      holders.size >= this.settings.maxRunningPerKey ||
      others.some((other) => other.place === "parked" || other.place === "ready" && !holders.has(other))
    )
    const { burstPerKey } = this.settings
    const allowedAt = Math.max(this.#keyAllowedAt.get(key) ?? -Infinity, this.#now)
    const isTooEarly = burstPerKey !== undefined && allowedAt - this.#now > burstPerKey - 1
    if (isBehind || isTooEarly) {
      message.attempts--
      message.place = isBehind ? "parked" : "later"
      message.due = allowedAt - (burstPerKey ?? 0) + 1
    } else if (burstPerKey !== undefined) {
      this.#keyAllowedAt.set(key, allowedAt + 1)
    }
    if (!isBehind) this.#holders.set(key, holders.add(message))
    return !isBehind && !isTooEarly
  }

  /** The database has given a token to what was claimed. */
  lease(token: string, ids: ReadonlyArray<number>, hours: number): void {
    this.#leases.set(token, { until: this.#now + hours, messages: new Set(ids.map((id) => this.#messages.get(id)!)) })
  }

  // ---------------------------------------------------------------------------------------------------- settling

  /** True when it is accepted. */
  settle(token: string, id: number, said: Said): boolean {
    const lease = this.#leases.get(token)
    const message = this.#messages.get(id)!
    if (lease?.messages.delete(message) !== true) return false
    if (lease.messages.size === 0) this.#leases.delete(token)
    switch (said._tag) {
      case "Ack":
        this.#done++
        message.place = "gone"
        this.#end([message], "done")
        return true
      case "Release":
        Object.assign(message, { place: "ready", isSuspect: false, attempts: message.attempts - 1 })
        return true
      case "Snooze":
        Object.assign(message, { place: "later", due: this.#now + said.after, attempts: message.attempts - 1 })
        return true
      case "Nack":
        this.#failed++
        if (said.givesUp || message.attempts >= this.settings.maxAttempts) {
          message.place = "dead"
          this.#end([message], "dead")
        } else {
          Object.assign(message, { place: "later", due: this.#now + said.after })
        }
        return true
    }
  }

  extend(token: string, hours: number): boolean {
    const lease = this.#leases.get(token)
    if (lease !== undefined) lease.until = Math.max(lease.until, this.#now + hours)
    return lease !== undefined
  }

  /** Time passes, and what nobody has settled in time comes back. */
  pass(hours: number): void {
    this.#now += hours
    for (const [token, { messages, until }] of this.#leases) {
      if (until > this.#now) continue
      this.#leases.delete(token)
      this.#failed += messages.size
      const dead = [...messages].filter(({ attempts }) => attempts >= this.settings.maxAttempts)
      for (const message of messages) Object.assign(message, { place: "ready", isSuspect: true })
      for (const message of dead) message.place = "dead"
      this.#end(dead, "dead")
    }
  }

  /** What messages that are over held is let go: their unique keys, and their place in their keys. */
  #end(messages: ReadonlyArray<Message>, state: State | "withdrawn"): void {
    for (const { id, unique } of messages) {
      const own = unique === undefined ? undefined : this.#uniques.get(unique.key)
      if (own?.id !== id) continue
      const isKept = own.during.some((each) => each === state) &&
        (own.until === Infinity ? state !== "done" : own.until > this.#now)
      if (!isKept) this.#uniques.delete(unique!.key)
    }
    for (const message of messages) if (message.key !== undefined) this.#holders.get(message.key)?.delete(message)
    for (const key of new Set(messages.map(({ key }) => key))) if (key !== undefined) this.#advance(key)
  }

  /** The next of a key may be claimed, as many as may run, but for those that were sent after one that was not claimed yet. */
  #advance(key: string): void {
    const holders = this.#holders.get(key) ?? new Set()
    const ofKey = [...this.#messages.values()].filter((message) => message.key === key).sort(byAge)
    for (const message of ofKey.filter(({ place }) => place === "parked")) {
      const isFirst = !ofKey.some((other) => other.id < message.id && other.place === "ready" && !holders.has(other))
      if (holders.size >= this.settings.maxRunningPerKey || !isFirst) return
      Object.assign(message, { place: "ready", isSuspect: false })
      this.#holders.set(key, holders.add(message))
    }
  }

  // ------------------------------------------------------------------------------------------------------ by hand

  withdraw(id: number): boolean {
    const message = this.#messages.get(id)
    if (message === undefined || !isWaiting(message)) return false
    message.place = "gone"
    this.#end([message], "withdrawn")
    return true
  }

  /** How many were taken away. */
  purge(): number {
    const waiting = [...this.#messages.values()].filter(isWaiting)
    for (const message of waiting) message.place = "gone"
    this.#end(waiting, "withdrawn")
    return waiting.length
  }

  /** Those that are sent again. */
  reprocess(ids: ReadonlyArray<number>): ReadonlyArray<number> {
    const again = this.#at("dead").filter(({ id }) => ids.includes(id))
    for (const message of again) Object.assign(message, { place: "ready", attempts: 0, isSuspect: false })
    return again.map(({ id }) => id)
  }

  /** How many are forgotten. */
  discard(ids: ReadonlyArray<number>): number {
    const gone = this.#at("dead").filter(({ id }) => ids.includes(id))
    for (const message of gone) {
      message.place = "gone"
      if (message.unique !== undefined && this.#uniques.get(message.unique.key)?.id === message.id) {
        this.#uniques.delete(message.unique.key)
      }
    }
    return gone.length
  }

  #at(place: Place): Array<Message> {
    return [...this.#messages.values()].filter((message) => message.place === place)
  }
}

const isWaiting = ({ place }: Message): boolean => place === "ready" || place === "later" || place === "parked"

const begin = (message: Message): void => {
  message.place = "leased"
  message.attempts++
}

const byUrgency = (one: Message, other: Message): number => other.priority - one.priority || one.id - other.id
const byAge = (one: Message, other: Message): number => one.id - other.id
