/**
 * Sockets beside that of a server which listen on its port too, and hand it their connections.
 *
 * **Details**
 *
 * Node accepts one connection of each listening socket in a turn of the event loop. A busy server, whose turns take some
 * milliseconds, would accept a few hundred connections a second, and everybody else would wait in the kernel where nobody refuses
 * them: clients give up, come back by new connections, and it never recovers. With 32 sockets it accepts 32 in a turn.
 *
 * They share the port by `SO_REUSEPORT`, where the kernel deals connections out between sockets: on Linux.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Http from "node:http"
import * as Net from "node:net"

/** All sockets that listen. */
const sockets = 32

/**
 * True where a port can be shared by the sockets of this process, and nobody else listens on it. A port that is shared would be
 * shared with another server as well, which has to be an error as ever.
 *
 * @category getters
 * @since 0.1.0
 */
export const canShare = (host: string, port: number): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    if (process.platform !== "linux") return resume(Effect.succeed(false))
    const probe = Net.createServer()
    probe.once("error", () => resume(Effect.succeed(false)))
    probe.listen({ host, port }, () => void probe.close(() => resume(Effect.succeed(true))))
  })

/**
 * Opens them once the server listens, which has to share its port. What closes all is given: it waits for their connections to end.
 *
 * @category constructors
 * @since 0.1.0
 */
export const attach = (server: Http.Server): (closed: () => void) => void => {
  let open: ReadonlyArray<Net.Server> = []
  server.once("listening", () => {
    const address = server.address()
    if (address === null || typeof address === "string") return
    open = Array.from({ length: sockets - 1 }, () => {
      const acceptor = Net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
        server.emit("connection", socket)
      })
      // The others do without it.
      acceptor.on("error", () => {})
      return acceptor.listen({ host: address.address, port: address.port, reusePort: true })
    })
  })
  return (closed) => {
    const listening = open.filter((acceptor) => acceptor.listening)
    let left = listening.length
    if (left === 0) return closed()
    for (const acceptor of listening) acceptor.close(() => --left === 0 && closed())
  }
}
