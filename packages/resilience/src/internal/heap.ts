/**
 * A binary heap whose members know their place, so that any of them can move or leave. Of equal keys the one that was
 * put first comes first.
 */
export class Node<A> {
  readonly value: A
  key = 0
  order = 0
  place = -1

  constructor(value: A) {
    this.value = value
  }
}

export class Heap<A> {
  readonly #nodes: Array<Node<A>> = []
  #puts = 0

  get size(): number {
    return this.#nodes.length
  }

  /** The member with the smallest key. */
  get first(): A | undefined {
    return this.#nodes[0]?.value
  }

  get firstNode(): Node<A> | undefined {
    return this.#nodes[0]
  }

  has(node: Node<A>): boolean {
    return this.#nodes[node.place] === node
  }

  /** Adds a member, or gives it another key. */
  put(node: Node<A>, key: number): void {
    node.key = key
    node.order = ++this.#puts
    if (this.has(node)) {
      this.#sink(node, this.#lift(node, node.place))
    } else {
      this.#nodes.push(node)
      this.#lift(node, this.#nodes.length - 1)
    }
  }

  delete(node: Node<A>): boolean {
    if (!this.has(node)) return false
    const place = node.place
    const last = this.#nodes.pop()
    node.place = -1
    if (last !== undefined && last !== node) this.#sink(last, this.#lift(last, place))
    return true
  }

  /** Takes as much from every key. */
  shift(by: number): void {
    for (const node of this.#nodes) node.key -= by
  }

  #lift(node: Node<A>, from: number): number {
    let place = from
    while (place > 0) {
      const above = (place - 1) >> 1
      const parent = this.#nodes[above]!
      if (!isBefore(node, parent)) break
      this.#set(parent, place)
      place = above
    }
    this.#set(node, place)
    return place
  }

  #sink(node: Node<A>, from: number): void {
    let place = from
    for (;;) {
      let below = 2 * place + 1
      if (below >= this.#nodes.length) break
      if (below + 1 < this.#nodes.length && isBefore(this.#nodes[below + 1]!, this.#nodes[below]!)) below++
      const child = this.#nodes[below]!
      if (!isBefore(child, node)) break
      this.#set(child, place)
      place = below
    }
    this.#set(node, place)
  }

  #set(node: Node<A>, place: number): void {
    this.#nodes[place] = node
    node.place = place
  }
}

const isBefore = <A>(left: Node<A>, right: Node<A>): boolean =>
  left.key < right.key || (left.key === right.key && left.order < right.order)
