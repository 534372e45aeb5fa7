import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import { createServer } from "node:http"

export interface Received {
  readonly body: string
  readonly headers: Readonly<Record<string, string | undefined>>
}

/** A server on a free port that keeps what it is posted, and answers each request as told, by its number. */
export const make = Effect.fnUntraced(function*(answer: (request: number) => HttpServerResponse.HttpServerResponse) {
  const received = yield* Queue.unbounded<Received>()
  let requests = 0
  const take = HttpRouter.add(
    "POST",
    "/secret-hook",
    Effect.gen(function*() {
      const request = yield* HttpServerRequest.HttpServerRequest
      yield* Queue.offer(received, { body: yield* request.text, headers: request.headers })
      return answer(++requests)
    })
  )
  const context = yield* Layer.build(
    HttpRouter.serve(take, { disableListenLog: true, disableLogger: true }).pipe(
      Layer.provideMerge(
        NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1", gracefulShutdownTimeout: "100 millis" })
      )
    )
  )
  const { address } = Context.get(context, HttpServer.HttpServer)
  return { url: `${HttpServer.formatAddress(address)}/secret-hook`, next: Queue.take(received) }
})

export const status = (status: number, headers: Record<string, string> = {}) =>
  HttpServerResponse.empty({ status, headers })
