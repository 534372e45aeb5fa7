/**
 * A small HTTP client that costs little: whoever measures a server on its own machine takes from it what it uses itself.
 *
 * **Details**
 *
 * A connection carries one request at a time and is used again. There is no limit but that of all connections, so requests
 * do not wait for each other.
 *
 * @since 0.1.0
 */
import * as Net from "node:net"

/**
 * Told of the status of an answer, or that there is none: the connection broke, or the caller hung up.
 *
 * @category models
 * @since 0.1.0
 */
export type Answered = (status: number | "broken" | "late") => void

/**
 * Connections to one server.
 *
 * @category models
 * @since 0.1.0
 */
export class Connections {
  readonly #port: number
  readonly #most: number
  readonly #free: Array<Connection> = []
  // In the order in which they were sent.
  readonly #busy = new Set<Connection>()
  #open = 0

  constructor(options: { readonly port: number; readonly most: number }) {
    this.#port = options.port
    this.#most = options.most
  }

  get busy(): number {
    return this.#busy.size
  }

  /** Sends a request. False when there is no connection left for it. */
  send(request: string, now: number, answered: Answered): boolean {
    const connection = this.#free.pop() ?? (this.#open < this.#most ? this.#connect() : undefined)
    if (connection === undefined) return false
    this.#busy.add(connection)
    connection.send(request, now, answered)
    return true
  }

  /** Hangs up on requests that were sent before. */
  hangUp(before: number): void {
    for (const connection of this.#busy) {
      if (connection.sentAt >= before) return
      this.#busy.delete(connection)
      connection.hangUp()
    }
  }

  close(): void {
    for (const connection of [...this.#busy, ...this.#free]) connection.hangUp()
  }

  #connect(): Connection {
    this.#open++
    return new Connection(this.#port, {
      free: (connection) => {
        this.#busy.delete(connection)
        this.#free.push(connection)
      },
      gone: (connection) => {
        this.#open--
        if (this.#busy.delete(connection)) return
        const place = this.#free.indexOf(connection)
        if (place !== -1) this.#free.splice(place, 1)
      }
    })
  }
}

class Connection {
  readonly #socket: Net.Socket
  readonly #free: (connection: Connection) => void
  #read = ""
  #answered: Answered | undefined
  sentAt = 0

  constructor(port: number, owner: {
    readonly free: (connection: Connection) => void
    readonly gone: (connection: Connection) => void
  }) {
    this.#free = owner.free
    this.#socket = Net.connect({ host: "127.0.0.1", port, noDelay: true })
    this.#socket.setEncoding("latin1")
    this.#socket.on("data", (text: string) => this.#receive(text))
    this.#socket.on("error", () => {})
    this.#socket.on("close", () => {
      owner.gone(this)
      this.#finish("broken")
    })
  }

  send(request: string, now: number, answered: Answered): void {
    this.sentAt = now
    this.#answered = answered
    this.#socket.write(request, "latin1")
  }

  /** A reset leaves no port behind that has to rest before it is used again. */
  hangUp(): void {
    this.#finish("late")
    if (this.#socket.connecting) this.#socket.destroy()
    else this.#socket.resetAndDestroy()
  }

  #receive(text: string): void {
    this.#read += text
    const status = statusOf(this.#read)
    if (status === undefined) return
    this.#read = ""
    this.#free(this)
    this.#finish(status)
  }

  #finish(status: number | "broken" | "late"): void {
    const answered = this.#answered
    this.#answered = undefined
    answered?.(status)
  }
}

/**
 * The status of an answer that is there as a whole.
 *
 * @category parsing
 * @since 0.1.0
 */
export const statusOf = (text: string): number | undefined => {
  const head = text.indexOf("\r\n\r\n")
  if (head === -1) return undefined
  const length = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, head + 2))
  const isWhole = length === null ? text.endsWith("\r\n0\r\n\r\n") : text.length >= head + 4 + Number(length[1])
  return isWhole ? Number(text.slice(9, 12)) : undefined
}
