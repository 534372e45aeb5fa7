/**
 * The HTTP listener. It listens before anything else is built and answers from then on: what comes before the application
 * serves gets 503 and the advice to come again, and the liveness probe gets 200.
 *
 * @since 0.1.0
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { ServiceUnavailable } from "@strata/http-api/Problem"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerRespondable from "effect/http/HttpServerRespondable"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Http from "node:http"
import type { Socket } from "node:net"
import * as Acceptors from "./Acceptors.ts"
import * as HttpGate from "./HttpGate.ts"
import * as Problems from "./Problems.ts"
import * as RequestLog from "./RequestLog.ts"
import { ServerConfig } from "./ServerConfig.ts"

/** What is answered while the application is not there: before it serves, and after it has stopped serving. */
const absent = Effect.gen(function*() {
  const request = yield* HttpServerRequest.HttpServerRequest
  if (request.method === "GET" && request.url === "/health/live") return HttpServerResponse.jsonUnsafe({ status: "UP" })
  return yield* HttpServerRespondable.toResponse(
    new ServiceUnavailable({ detail: "The server is starting or stopping. Try again.", retryAfter: 1 })
  )
})

/**
 * Listens on the configured interface and port.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = Layer.unwrap(Effect.gen(function*() {
  const { host, port, shutdownTimeout } = yield* ServerConfig
  const scope = yield* Effect.scope
  const answerAbsent = yield* NodeHttpServer.makeHandler(Problems.complete(absent), {
    scope,
    middleware: RequestLog.middleware
  })
  const gate = yield* HttpGate.make
  const reusePort = yield* Acceptors.canShare(host, port)
  return Layer.merge(
    NodeHttpServer.layer(() => makeServer(answerAbsent, gate, reusePort), {
      host,
      port,
      reusePort,
      gracefulShutdownTimeout: shutdownTimeout
    }),
    Layer.succeed(HttpGate.HttpGate, gate)
  )
}))

type Handler = (request: Http.IncomingMessage, response: Http.ServerResponse) => void

/** A server with many listening sockets, whose listeners never hear of requests that its gate refuses. */
class GatedServer extends Http.Server {
  gate: HttpGate.HttpGate["Service"] | undefined
  closeOthers = (closed: () => void): void => closed()

  override close(closed?: (error?: Error) => void): this {
    // The connections of all have to end, whichever ends last.
    const others = new Promise<void>((resolve) => this.closeOthers(resolve))
    return super.close((error) => void others.then(() => closed?.(error)))
  }

  override emit(...given: [event: string, ...arguments_: Array<unknown>]): boolean {
    const [event, request, response] = given
    const isRequest = event === "request" && request instanceof Http.IncomingMessage &&
      response instanceof Http.ServerResponse
    return isRequest && this.gate?.refuses(request, response) === true || super.emit(...given)
  }
}

/** A node server whose first listener steps aside for the application's. */
const makeServer = (answerAbsent: Handler, gate: HttpGate.HttpGate["Service"], reusePort: boolean): Http.Server => {
  const server = new GatedServer({ requestTimeout: 60_000, headersTimeout: 15_000 })
  server.gate = gate
  if (reusePort) server.closeOthers = Acceptors.attach(server)
  server.on("request", (request: Http.IncomingMessage, response: Http.ServerResponse) => {
    // Connections that were idle when the shutdown began are closed by then; these become so after their answer.
    response.once("close", () => {
      if (!server.listening) server.closeIdleConnections()
    })
    if (server.listenerCount("request") === 1) answerAbsent(request, response)
  })
  server.on("clientError", refuseUnparsable)
  return server
}

/** What is not HTTP at all has no request to answer, only a socket. */
const refuseUnparsable = (error: Error & { readonly code?: string }, socket: Socket): void => {
  if (!socket.writable || error.code === "ECONNRESET") return void socket.destroy()
  const [status, type, title] = error.code === "HPE_HEADER_OVERFLOW"
    ? [431, "headers-too-large", "Request header fields too large"] as const
    : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
    ? [408, "request-timeout", "Request timeout"] as const
    : [400, "bad-request", "Bad request"] as const
  const body = `{"type":"urn:strata:problem:${type}","title":"${title}","status":${status},`
    + `"detail":"The request is not valid HTTP","error":"The request is not valid HTTP"}`
  socket.end(
    `HTTP/1.1 ${status} ${title}\r\ncontent-type: application/problem+json\r\n`
      + `content-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`
  )
}
