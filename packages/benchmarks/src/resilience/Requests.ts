/**
 * The requests that are sent: half of them send a message, the others read the newest ones, of all classes.
 *
 * @since 0.1.0
 */
import * as Load from "./Load.ts"

/**
 * A request, as it stands on the wire.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request {
  readonly text: string
  readonly class: Load.Class
}

/**
 * The request that starts a conversation.
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = (order: Load.Order, n: number): Request => {
  const participants = `[{"userId":"ada","role":"CUSTOMER"},{"userId":"bob","role":"SERVICE_PROVIDER"}]`
  return post(order, "", Load.classes[0], `{"conversationId":"c-${n}","participants":${participants}}`)
}

/**
 * The n-th request. Classes, kinds and conversations are evenly mixed, the same way in every round.
 *
 * @category constructors
 * @since 0.1.0
 */
export const nth = (order: Load.Order, n: number, urgent: boolean): Request => {
  const kind = urgent ? Load.classes[0] : classAt((n * goldenRatio) % 1)
  const id = (n * prime) % order.conversations
  return (n * Math.SQRT2) % 1 < 0.5
    ? post(order, `/c-${id}/messages`, kind, `{"senderId":"ada","content":"message ${n} of ${order.label}"}`)
    : { text: `GET ${root}/c-${id}/messages?limit=20 HTTP/1.1\r\n${headers(order, kind)}\r\n`, class: kind.name }
}

type Kind = (typeof Load.classes)[number]

const root = "/api/v1/conversations"

const goldenRatio = (Math.sqrt(5) - 1) / 2

/** Larger than the number of conversations, so neighbours are far from each other. */
const prime = 7919

const classAt = (place: number): Kind => {
  let below = 0
  for (const kind of Load.classes) {
    below += kind.share
    if (place < below) return kind
  }
  return Load.classes[3]
}

const post = (order: Load.Order, path: string, kind: Kind, body: string): Request => ({
  text: `POST ${root}${path} HTTP/1.1\r\n${headers(order, kind)}content-type: application/json\r\n` +
    `content-length: ${body.length}\r\n\r\n${body}`,
  class: kind.name
})

const headers = ({ key, port }: Load.Order, { priority }: Kind): string =>
  `host: 127.0.0.1:${port}\r\nx-api-key: ${key}\r\nx-priority: ${priority}\r\n`
