import { assert, describe, it } from "@effect/vitest"
import * as ClientAddress from "@strata/resilience/limits/ClientAddress"
import * as Effect from "effect/Effect"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as IpNetwork from "effect/net/IpNetwork"
import * as Option from "effect/Option"

/** The key of a request that comes from `peer`, where only proxies in 10.0.0.0/8 are trusted. */
const keyBehindProxies = Effect.fnUntraced(function*(peer: string, forwardedFor: string) {
  let key = ""
  yield* HttpServerRequest.HttpServerRequest.pipe(
    Effect.map((request) => {
      key = ClientAddress.keyOfRequest(request)
      return HttpServerResponse.empty()
    }),
    HttpMiddleware.xForwardedHeaders({ trustedProxies: [IpNetwork.fromStringUnsafe("10.0.0.0/8")] }),
    Effect.provideService(
      HttpServerRequest.HttpServerRequest,
      HttpServerRequest.fromWeb(new Request("http://app.test/", { headers: { "x-forwarded-for": forwardedFor } }))
        .modify({ remoteAddress: Option.some(peer) })
    )
  )
  return key
})

describe("the key of a client", () => {
  for (
    const [name, one, other] of [
      ["two addresses of one /64", "2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"],
      ["an IPv4 address mapped into IPv6", "::ffff:1.2.3.4", "1.2.3.4"],
      ["an address with a port", "1.2.3.4:5555", "1.2.3.4"],
      ["an IPv6 address with a port", "[2001:db8::1]:443", "2001:db8::1"],
      ["an IPv6 address in brackets", "[2001:db8::1]", "2001:db8::1"],
      ["an IPv6 address in capitals, written out", "2001:0DB8:0:0:0:0:0:1", "2001:db8::1"],
      ["an address of a zone", "fe80::1%eth0", "fe80::1"]
    ] as const
  ) it(`${name} is one client`, () => assert.strictEqual(ClientAddress.keyOf(one), ClientAddress.keyOf(other)))

  it("is the address of IPv4, and the network of IPv6", () => {
    assert.strictEqual(ClientAddress.keyOf("1.2.3.4:5555"), "1.2.3.4")
    assert.strictEqual(ClientAddress.keyOf("2001:db8:1:2::1"), "2001:db8:1:2::/64")
    assert.strictEqual(ClientAddress.keyOf("2001:db8:1:2ff::1", { ipv6Prefix: 56 }), "2001:db8:1:200::/56")
    assert.notStrictEqual(ClientAddress.keyOf("2001:db8:1:2::1"), ClientAddress.keyOf("2001:db8:1:3::1"))
  })

  it("is one for all that have no address", () => {
    for (const text of [undefined, "", "unknown", "/run/app.sock", "1.2.3", "1.2.3.4.5"]) {
      assert.strictEqual(ClientAddress.keyOf(text), ClientAddress.unknown)
    }
  })

  it.effect("an X-Forwarded-For of a stranger is not believed", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* keyBehindProxies("192.0.2.7", "6.6.6.6"), "192.0.2.7")
    }))

  it.effect("of a proxy's X-Forwarded-For the last entry counts that no proxy wrote for another", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* keyBehindProxies("10.0.0.1", "6.6.6.6, 198.51.100.7"), "198.51.100.7")
      assert.strictEqual(yield* keyBehindProxies("10.0.0.1", "6.6.6.6, 198.51.100.7:5555, 10.0.0.2"), "198.51.100.7")
      assert.strictEqual(yield* keyBehindProxies("::ffff:10.0.0.1", "2001:db8::5"), "2001:db8::/64")
    }))
})
