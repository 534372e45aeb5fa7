/**
 * Start-time fair queuing (Goyal, Vin and Cheng, 1996): who has the smallest start is next, and is charged its cost
 * divided by its weight. Over any time in which two are waited for, what they got differs by at most one charge of each.
 */
export interface Share {
  /** Virtual time at which its next turn starts. */
  start: number
  /** Virtual time at which it last joined: what it is given back never takes it before that. */
  floor: number
  /** What its last turn was charged. */
  charge: number
}

/** Past this, starts are brought back to zero: a charge added to a number too large would be rounded away. */
const far = 2 ** 32

/** A turn out of order, or one that was missed, moves a share by no more than this many charges. */
const most = 10

export class VirtualTime {
  now = 0

  get isFar(): boolean {
    return this.now >= far
  }

  /** A share that was not waited for starts now: idling earns nothing, and what it owes is not forgotten. */
  join(share: Share): void {
    share.floor = this.now
    share.start = Math.max(share.start, this.now)
  }

  /** Serves the share whose turn it is. Returns what was charged. */
  serve(share: Share, charge: number): number {
    this.now = Math.max(this.now, share.start)
    share.start += charge
    share.charge = charge
    return charge
  }

  /** Serves a share before its turn. Returns what was charged. */
  serveEarly(share: Share, charge: number): number {
    const before = share.start
    share.start = Math.max(before, Math.min(before + charge, this.now + most * charge))
    share.charge = charge
    return share.start - before
  }

  /** A share whose turns were missed since nothing may run for it is owed no more than a few of them. */
  miss(share: Share): void {
    share.start = Math.max(share.start, this.now - most * share.charge)
  }

  /** The turn cost more, or less, than was charged. */
  correct(share: Share, difference: number): void {
    share.start = Math.max(share.floor, share.start + difference)
  }

  /** Takes the time that has passed from the clock and from every share. */
  rewind(shares: Iterable<Share>): void {
    for (const share of shares) {
      share.start -= this.now
      share.floor -= this.now
    }
    this.now = 0
  }
}

const mostCost = 2 ** 40

/** A cost or a weight: what is none counts as 1, and nothing as so much that it would never be paid off. */
export const positive = (number: number | undefined): number =>
  number !== undefined && number > 0 && Number.isFinite(number) ? Math.min(number, mostCost) : 1
