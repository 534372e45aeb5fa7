import { assert, layer } from "@effect/vitest"
import { openApi } from "@strata/http-api/Api"
import * as Effect from "effect/Effect"
import type * as HttpMethod from "effect/http/HttpMethod"
import * as NodeNet from "node:net"
import { type Answer, type Asked, conversation, keys, layerServer, TestServer } from "./testServer.ts"

const traceId = "0af7651916cd43dd8448eb211c80319c"
const traceparent = `00-${traceId}-b7ad6b7169203331-01`

const assertProblem = (answer: Answer, status: number, path: string) => {
  assert.strictEqual(answer.status, status, answer.text)
  assert.strictEqual(answer.headers["content-type"], "application/problem+json")
  const { detail, error, instance, timestamp, title, type } = answer.json
  assert.match(type, /^urn:strata:problem:[a-z-]+$/)
  assert.isString(title)
  assert.strictEqual(answer.json.status, status)
  assert.isTrue(detail.length > 0)
  assert.strictEqual(error, detail)
  assert.strictEqual(instance, path.split("?", 1)[0])
  assert.strictEqual(answer.json.traceId, traceId)
  assert.match(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
}

const c = "/api/v1/conversations"
const message = { senderId: "ada", content: "hello" }
const deep = (levels: number) => `${"[".repeat(levels)}${"]".repeat(levels)}`

interface Bad {
  readonly name: string
  readonly method?: HttpMethod.HttpMethod
  readonly path: string
  readonly asked?: Asked
  readonly status: number
  /** A path among `errors`. */
  readonly at?: string
}

const post = (name: string, path: string, body: unknown, status: number, at?: string): Bad => ({
  name,
  method: "POST",
  path,
  asked: { body },
  status,
  ...(at === undefined ? {} : { at })
})

const bad: ReadonlyArray<Bad> = [
  // the body
  post("no body", c, "", 400, "body"),
  post("broken JSON", c, "{\"participants\":", 400, "body"),
  post("JSON of another kind", c, "[]", 400, "body"),
  post("null", c, "null", 400, "body"),
  post("bytes that are not UTF-8", c, new Uint8Array([0xff, 0xfe, 0x7b, 0x7d]), 400, "body"),
  post(
    "a string that is not UTF-8",
    c,
    new Uint8Array([
      ...new TextEncoder().encode("{\"conversationId\":\"a"),
      0xff,
      ...new TextEncoder().encode("\",\"participants\":[]}")
    ]),
    400,
    "body"
  ),
  post("a field that is missing", c, {}, 400, "body.participants"),
  post(
    "a field of another type",
    c,
    { participants: [{ userId: 7, role: "CUSTOMER" }] },
    400,
    "body.participants[0].userId"
  ),
  post("an unknown role", c, { participants: [{ userId: "a", role: "KING" }] }, 400, "body.participants[0].role"),
  post("an empty id", c, { ...conversation("x"), conversationId: "" }, 400, "body.conversationId"),
  post(
    "an id that is too long",
    c,
    { ...conversation("x"), conversationId: "x".repeat(256) },
    400,
    "body.conversationId"
  ),
  post("NUL in an id", c, { ...conversation("x"), conversationId: "a\0b" }, 400, "body.conversationId"),
  post("a lone surrogate in an id", c, `{"conversationId":"\\ud800","participants":[]}`, 400, "body.conversationId"),
  post("NUL in content", `${c}/there/messages`, { ...message, content: "a\0b" }, 400, "body.content"),
  post(
    "a lone surrogate in content",
    `${c}/there/messages`,
    `{"senderId":"ada","content":"\\udfff"}`,
    400,
    "body.content"
  ),
  post("NUL in metadata", `${c}/there/messages`, { ...message, metadata: { a: ["\0"] } }, 400, "body.metadata"),
  post("NUL in a name of metadata", `${c}/there/messages`, { ...message, metadata: { "\0": 1 } }, 400, "body.metadata"),
  post(
    "a huge number",
    `${c}/there/messages`,
    `{"senderId":"ada","content":"x","metadata":{"n":1e999}}`,
    400,
    "body.metadata.n"
  ),
  post(
    "nesting without end",
    `${c}/there/messages`,
    `{"senderId":"ada","content":"x","metadata":{"n":${deep(100_000)}}}`,
    400,
    "body.metadata"
  ),
  post("nesting without end in place of a body", c, deep(400_000), 400, "body"),
  post(
    "metadata that is too large",
    `${c}/there/messages`,
    { ...message, metadata: { a: "x".repeat(20_000) } },
    400,
    "body.metadata"
  ),
  post("too large a body", `${c}/there/messages`, { ...message, content: "x".repeat(1_100_000) }, 413),
  {
    ...post("another content type", c, conversation("x"), 415),
    asked: { body: "x", headers: { "content-type": "text/plain" } }
  },
  {
    ...post("a form", c, "", 415),
    asked: { body: "a=b", headers: { "content-type": "application/x-www-form-urlencoded" } }
  },
  { ...post("a malformed content type", c, "", 415), asked: { body: "{}", headers: { "content-type": ";;;" } } },
  // path, query and headers
  { name: "NUL in the path", path: `${c}/%00`, status: 400, at: "path.id" },
  { name: "a path that is not UTF-8", path: `${c}/%ff`, status: 404 },
  { name: "a broken escape in the path", path: `${c}/%zz`, status: 404 },
  { name: "an id in the path that is too long", path: `${c}/${"x".repeat(300)}`, status: 400, at: "path.id" },
  { name: "a path that is far too long", path: `${c}/${"x".repeat(5000)}`, status: 404 },
  { name: "a limit of 0", path: `${c}?limit=0`, status: 400, at: "query.limit" },
  { name: "a limit above the largest", path: `${c}?limit=501`, status: 400, at: "query.limit" },
  { name: "a limit with a fraction", path: `${c}?limit=1.5`, status: 400, at: "query.limit" },
  { name: "a limit without end", path: `${c}?limit=Infinity`, status: 400, at: "query.limit" },
  { name: "two limits", path: `${c}?limit=1&limit=2`, status: 400, at: "query.limit" },
  { name: "a cursor of nobody", path: `${c}?cursor=abc`, status: 400, at: "query.cursor" },
  { name: "NUL in a cursor", path: `${c}?cursor=%00`, status: 400, at: "query.cursor" },
  { name: "NUL in a filter", path: `${c}?contextId=%00`, status: 400, at: "query.contextId" },
  { name: "an unknown status", path: `${c}?status=OPEN`, status: 400, at: "query.status" },
  { name: "unread of nobody", path: `${c}?unread=true`, status: 400, at: "query.participant" },
  { name: "unread of another type", path: `${c}?unread=maybe`, status: 400, at: "query.unread" },
  { name: "a position with a sign", path: `${c}?minPosition=-1`, status: 400, at: "query.minPosition" },
  {
    name: "a position beyond 64 bits",
    path: `${c}?minPosition=9223372036854775808`,
    status: 400,
    at: "query.minPosition"
  },
  {
    name: "a position in the header that is none",
    path: c,
    asked: { headers: { "strata-min-position": "1e3" } },
    status: 400,
    at: "headers.strata-min-position"
  },
  {
    name: "a time without a zone",
    path: "/api/v1/analytics/conversations?from=2026-01-01T00:00:00",
    status: 400,
    at: "query.from"
  },
  {
    name: "a day that does not exist",
    path: "/api/v1/analytics/conversations?to=2026-02-30T00:00:00Z",
    status: 400,
    at: "query.to"
  },
  {
    ...post("a key that is too short", c, "", 400, "headers.idempotency-key"),
    asked: { body: conversation("k"), headers: { "idempotency-key": "short" } }
  },
  {
    ...post("a key that is too long", c, "", 400, "headers.idempotency-key"),
    asked: { body: conversation("k"), headers: { "idempotency-key": "k".repeat(256) } }
  },
  // who asks
  { name: "no key", path: c, asked: { key: null }, status: 401 },
  { name: "an unknown key", path: c, asked: { key: "nobody-0123456789" }, status: 401 },
  {
    name: "an unknown bearer token",
    path: c,
    asked: { key: null, headers: { authorization: "Bearer x" } },
    status: 401
  },
  { name: "another scheme", path: c, asked: { key: null, headers: { authorization: "Basic eDp5" } }, status: 401 },
  { ...post("a viewer who writes", c, "", 403), asked: { body: conversation("v"), key: keys.viewer } },
  // what there is
  { name: "an unknown path", path: "/api/v2/nothing", status: 404 },
  { name: "an unknown conversation", path: `${c}/nowhere`, status: 404 },
  { name: "messages of an unknown conversation", path: `${c}/nowhere/messages`, status: 404 },
  { name: "a message that is not there to look around", path: `${c}/there/messages?around=no`, status: 404 },
  post("a message to an unknown conversation", `${c}/nowhere/messages`, message, 404),
  { name: "a method that is not taken", method: "DELETE", path: `${c}/there`, status: 405 },
  { name: "a method that is not taken by a probe", method: "POST", path: "/health", status: 405 },
  // rules
  post("another start under the same id", c, { ...conversation("there"), context: { type: "SUPPORT" } }, 409),
  post("somebody in another role", `${c}/there/participants`, { userId: "ada", role: "ADMIN" }, 409),
  post("nobody who takes part", c, { conversationId: "empty", participants: [] }, 422),
  post("a stranger who writes", `${c}/there/messages`, { ...message, senderId: "eve" }, 422),
  post("no content", `${c}/there/messages`, { ...message, content: " " }, 422),
  post("content that is too long", `${c}/there/messages`, { ...message, content: "x".repeat(256 * 1024 + 1) }, 422),
  post("a reply to nothing", `${c}/there/messages`, { ...message, replyTo: "nothing" }, 422),
  post("reading up to nothing", `${c}/there/read`, { userId: "ada", upTo: "nothing" }, 422)
]

const placesIn = (answer: Answer): ReadonlyArray<string> =>
  answer.json.errors?.map((error: { path: string }) => error.path)

/** What is wrong with an answer, so that one run tells of all that are. */
const issueOf = ({ at, path, status }: Bad, answer: Answer): string | undefined => {
  try {
    assertProblem(answer, status, path)
    if (at !== undefined) assert.include(placesIn(answer), at)
    if (status === 405) assert.isString(answer.headers["allow"])
    if (status === 401) assert.isString(answer.headers["www-authenticate"])
    return undefined
  } catch (error) {
    return String(error)
  }
}

layer(layerServer(), { excludeTestServices: true })("problems", (it) => {
  it.effect("every mistake has its own status and a whole problem", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      yield* send("POST", c, { body: conversation("there") })
      const wrong: Array<string> = []
      for (const one of bad) {
        const answer = yield* send(one.method ?? "GET", one.path, {
          ...one.asked,
          headers: { traceparent, ...one.asked?.headers }
        })
        const issue = issueOf(one, answer)
        if (issue !== undefined) wrong.push(`${one.name}: ${issue} ${answer.text.slice(0, 300)}`)
      }
      assert.deepStrictEqual(wrong, [])
    }))

  it.effect("a query parameter that an endpoint does not have is refused by every endpoint, and named", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const wrong: Array<string> = []
      for (const [path, item] of Object.entries(openApi().paths)) {
        const id = path.includes("/events/")
          ? "018f2c5e-0000-7000-8000-000000000001"
          : path.includes("{date}")
          ? "2026-01-31"
          : "account-1"
        for (const method of ["GET", "POST", "PUT", "PATCH", "DELETE"] as const) {
          if (item[method.toLowerCase() as "get"] === undefined) continue
          const asked = { headers: { traceparent }, ...(method === "GET" ? {} : { body: {} }) }
          const answer = yield* send(method, `${path.replaceAll(/\{\w+\}/g, id)}?limti=3&x[]=1`, asked)
          const named = placesIn(answer)?.join() ?? ""
          if (answer.status !== 400 || !named.startsWith("query.limti,query.x[]")) {
            wrong.push(`${method} ${path} ${answer.status} ${named}`)
          }
        }
      }
      assert.deepStrictEqual(wrong, [])
      const problem = yield* send("GET", `${c}?participant=ada&partcipant=bob`, { headers: { traceparent } })
      assertProblem(problem, 400, c)
      assert.deepStrictEqual(problem.json.errors, [
        { path: "query.partcipant", message: "The endpoint has no such parameter" }
      ])
      const bare = yield* send("GET", "/health/live?a=1&b=2", { headers: { traceparent } })
      assertProblem(bare, 400, "/health/live")
      assert.deepStrictEqual(placesIn(bare), ["query.a", "query.b"])
    }))

  it.effect("a field that a body does not have is refused by every endpoint, at every depth, and named", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const e = "/api/v1/eventstores/default/default"
      const id = "018f2c5e-0000-7000-8000-000000000001"
      const event = { streamId: "field-1", eventType: "counted", eventData: {} }
      const condition = { afterPosition: "0", noneOf: [{ category: "none" }] }
      const cases: Array<readonly [method: "POST" | "PUT", path: string, body: object, field: string]> = [
        ["POST", `${e}/events`, { ...event, validto: null }, "validto"],
        ["POST", `${e}/events`, { ...event, condtion: condition }, "condtion"],
        ["POST", `${e}/events`, { ...event, condition: { ...condition, non: [] } }, "condition.non"],
        [
          "POST",
          `${e}/events`,
          { ...event, condition: { ...condition, noneOf: [{ catgory: 1 }] } },
          "condition.noneOf[0].catgory"
        ],
        ["POST", `${e}/events/batch`, { events: [event, { ...event, condition }] }, "events[1].condition"],
        ["POST", `${e}/events/${id}/corrections`, { reason: "r", validto: null }, "validto"],
        ["POST", `${e}/events/${id}/retraction`, { reason: "r", correctionReason: "r" }, "correctionReason"],
        ["PUT", `${e}/streams/field-1/metadata`, { metadata: {}, reason: "r", state: "open" }, "state"],
        ["POST", c, { ...conversation("field"), context: { kind: "SUPPORT" } }, "context.kind"],
        ["POST", c, { participants: [{ userId: "ada", role: "CUSTOMER", name: "Ada" }] }, "participants[0].name"],
        ["POST", `${c}/there/messages`, { ...message, replyto: "m1" }, "replyto"]
      ]
      for (const [path, { post, put }] of Object.entries(openApi().paths)) {
        const asked = path.replaceAll(/\{\w+\}/g, path.includes("/events/") ? id : "account-1")
        if (post?.requestBody !== undefined) cases.push(["POST", asked, { nmae: 1 }, "nmae"])
        if (put?.requestBody !== undefined) cases.push(["PUT", asked, { nmae: 1 }, "nmae"])
      }
      for (const [method, path, body, field] of cases) {
        const answer = yield* send(method, path, { body, headers: { traceparent } })
        assertProblem(answer, 400, path)
        const unknown = { path: `body.${field}`, message: "The endpoint has no such field" }
        assert.deepInclude(answer.json.errors, unknown, `${path} ${answer.text}`)
      }
      const free = { ...event, eventData: { condtion: { validto: 1 } }, metadata: { validto: [{ nmae: 1 }] } }
      const stored = yield* send("POST", `${e}/events`, { body: free })
      assert.deepStrictEqual([stored.json.eventData, stored.json.metadata], [free.eventData, free.metadata])
    }))

  it.effect("a number that would lose digits is refused, and named; others are stored", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const e = "/api/v1/eventstores/default/default/events"
      const write = (eventData: string, headers = {}) =>
        send("POST", e, {
          body: `{"streamId": "number-1", "eventType": "counted", "metadata": {"a b": 1}, "eventData": ${eventData}}`,
          headers
        })
      const lossy = [
        ["12345678901234567890", ""],
        ["-9007199254740993", ""],
        ["18446744073709551616", ""],
        ["1e400", ""],
        ["-1.5E+9999", ""],
        [`${"9".repeat(250)}.5e99`, ""],
        ["9".repeat(400), ""],
        [`{"amount":\n9007199254740993,"at":1}`, ".amount"],
        [`[{"a":1e3},[1,{"b c":12345678901234567890}]]`, "[1][1].b c"]
      ] as const
      for (const [number, place] of lossy) {
        const answer = yield* write(number)
        assert.deepStrictEqual([answer.status, placesIn(answer)], [400, [`body.eventData${place}`]], answer.text)
        assert.include(answer.json.detail, "send it as a string")
      }
      const several = yield* write(`[12345678901234567890,1,{"a":1e999}]`)
      assert.deepStrictEqual(placesIn(several), ["body.eventData[0]", "body.eventData[2].a"])
      const kept = [
        ["9007199254740991", 9007199254740991],
        ["-9007199254740994", -9007199254740994],
        ["[1767225600000000, 123456789012345680000]", [1767225600000000, 123456789012345680000]],
        ["[1e21, 6.02214076e23, 5e-324, 0.1, 0.12345678901234567890]", [
          1e21,
          6.02214076e23,
          5e-324,
          0.1,
          0.12345678901234568
        ]],
        [
          `["12345678901234567890", "a: 12345678901234567890, 1e400", {"12345678901234567890": ", 1e400"}]`,
          ["12345678901234567890", "a: 12345678901234567890, 1e400", { "12345678901234567890": ", 1e400" }]
        ]
      ] as const
      for (const [sent, eventData] of kept) {
        const { json, status, text } = yield* write(sent)
        assert.strictEqual(status, 201, text)
        assert.deepStrictEqual(json.eventData, eventData)
      }
      const capitals = yield* write("12345678901234567890", { "content-type": "Application/JSON; charset=utf-8" })
      assert.deepStrictEqual([capitals.status, placesIn(capitals)], [400, ["body.eventData"]])
      const broken = yield* write(`[12345678901234567890`)
      assert.deepStrictEqual([broken.status, placesIn(broken)], [400, ["body"]])
      const nested = yield* write(`${"[".repeat(100_000)} 12345678901234567890${"]".repeat(100_000)}`)
      assert.deepStrictEqual([nested.status, placesIn(nested)], [400, ["body.eventData"]])
    }))

  it.effect("the rule that was violated is named", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      yield* send("POST", c, { body: conversation("closed") })
      yield* send("POST", `${c}/closed/archive`)
      const { json } = yield* send("POST", `${c}/closed/messages`, { body: message })
      assert.strictEqual(json.rule, "ConversationArchived")
      assert.strictEqual(json.status, 422)
    }))

  it.effect("content of the largest size fits, and a bearer token does as well as a key", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const bearer = { key: null, headers: { authorization: `Bearer ${keys.operator}` } }
      yield* send("POST", c, { ...bearer, body: conversation("large") })
      const sent = yield* send("POST", `${c}/large/messages`, {
        ...bearer,
        body: { ...message, content: "\u0001".repeat(100_000) + "x".repeat(256 * 1024 - 100_000) }
      })
      assert.strictEqual(sent.status, 201)
    }))

  it.effect("a read that asks for a position nobody has reached gets 503 and the advice to wait", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const path = `${c}?minPosition=999999999`
      const answer = yield* send("GET", path, { headers: { traceparent } })
      assertProblem(answer, 503, path)
      assert.strictEqual(answer.headers["retry-after"], "1")
      assert.strictEqual(answer.json.retryAfter, 1)
      const byHeader = yield* send("GET", c, { headers: { "strata-min-position": "999999999" } })
      assert.strictEqual(byHeader.status, 503)
    }))

  it.effect("what is not HTTP at all is refused with 400", () =>
    Effect.gen(function*() {
      const { url } = yield* TestServer
      const answer = yield* Effect.callback<string>((resume) => {
        const socket = NodeNet.connect(Number(new URL(url).port), "127.0.0.1", () => socket.write("nonsense\r\n\r\n"))
        let text = ""
        socket.on("data", (chunk) => text += chunk.toString())
        socket.on("close", () => resume(Effect.succeed(text)))
      })
      assert.match(answer, /^HTTP\/1\.1 400 [\s\S]*application\/problem\+json/)
    }))
})
