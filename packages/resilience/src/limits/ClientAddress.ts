/**
 * The client of a request, as the key of a limit for each address.
 *
 * **Details**
 *
 * Who the client is, `HttpMiddleware.xForwardedHeaders` of effect says: it believes an `X-Forwarded-For` only of a peer among
 * the trusted proxies, and takes the last entry that none of them wrote. Without it every client behind a proxy is the proxy;
 * with a trust in everybody, every client chooses its own limit.
 *
 * Here it is made a key. One client has one key, however its address is written: without the port, an IPv4 address that is
 * mapped into IPv6 as itself, and an IPv6 address as the network of 64 bits that is given to one subscriber, since within it
 * the client takes whichever address it likes. Whatever is no address has the key `unknown`, and shares its allowance.
 *
 * **Example** (One bucket for each client)
 *
 * ```ts import.meta.vitest
 * import * as ClientAddress from "@strata/resilience/limits/ClientAddress"
 *
 * ClientAddress.keyOf("::ffff:192.0.2.1") // => "192.0.2.1"
 * ClientAddress.keyOf("[2001:db8::1]:443") // => "2001:db8::/64"
 * ```
 *
 * @since 0.1.0
 */
import type { HttpServerRequest } from "effect/http/HttpServerRequest"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as Result from "effect/Result"

/**
 * How addresses are made keys.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Bits of an IPv6 address that name the client: 64, or down to 48 where subscribers are given more. Default: 64. */
  readonly ipv6Prefix?: number | undefined
}

/**
 * The key of whatever is no address.
 *
 * @category constants
 * @since 0.1.0
 */
export const unknown = "unknown"

/**
 * The key of an address, with or without a port.
 *
 * @category getters
 * @since 0.1.0
 */
export const keyOf = (address: string | undefined, { ipv6Prefix = 64 }: Options = {}): string => {
  const ip = address === undefined ? undefined : parse(address)
  if (ip === undefined) return unknown
  if (NetAddress.isIpv4Address(ip)) return NetAddress.formatIp(ip)
  return Result.match(IpNetwork.fromAddress(ip, ipv6Prefix), { onSuccess: IpNetwork.format, onFailure: () => unknown })
}

/**
 * The key of the client of a request, which `HttpMiddleware.xForwardedHeaders` has gone over where proxies stand in front.
 *
 * @category getters
 * @since 0.1.0
 */
export const keyOfRequest = (request: HttpServerRequest, options?: Options): string =>
  keyOf(Option.getOrUndefined(request.remoteAddress), options)

/**
 * True for a request from the machine itself.
 *
 * @category guards
 * @since 0.1.0
 */
export const isLoopback = (request: HttpServerRequest): boolean => {
  const address = Option.getOrUndefined(request.remoteAddress)
  const ip = address === undefined ? undefined : parse(address)
  return ip !== undefined && NetAddress.isLoopback(ip)
}

/** `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`, and each of IPv6 with a zone. */
const parse = (text: string): NetAddress.IpAddress | undefined => {
  const address = text.trim().replace(/%[^\]]*/, "").replace(/^\[([^\]]*)\]$/, "$1")
  const ip = NetAddress.ipFromString(address)
  if (Result.isSuccess(ip)) return NetAddress.toCanonical(ip.success)
  const withPort = NetAddress.inetAddressFromString(address)
  return Result.isSuccess(withPort) ? NetAddress.toCanonical(withPort.success.address) : undefined
}
