/**
 * Admission of requests whose caller is known: their class, their deadline, whether there is too much to do, and the limits.
 *
 * **Details**
 *
 * In this order, before a byte of the body is looked at and without asking the database:
 *
 * 1. The class: that of the endpoint, or what `X-Priority` says. Work below knows it as `Priority.Current`.
 * 2. The deadline: `STRATA_REQUEST_TIMEOUT`, or what is left according to `X-Deadline-Ms` when that is less. Work below knows
 *    it as `Deadline.Current`.
 * 3. Shedding: 503 while the server has more to do than it can, the least urgent class and the busiest tenant first.
 * 4. The limits: 429 above the limit of all callers, of the caller, or of the address. All of them are charged, or none.
 *    Requests from the machine itself have no limit by address. Answers carry `RateLimit-…` of the tightest.
 * 5. A place: the classes take turns as 8:4:2:1, the tenants of a class in equal parts, and a fifth of the places is kept for
 *    the most urgent; 503 when too many wait. A tenant above its quota gets 429.
 *
 * Strangers, whose credential is not known, are limited by address alone: see `Authenticator`.
 *
 * @since 0.1.0
 */
import * as Api from "@strata/http-api/Admission"
import { Api as StrataApi } from "@strata/http-api/Api"
import * as Principal from "@strata/http-api/Principal"
import { ServiceUnavailable, TooManyRequests } from "@strata/http-api/Problem"
import { Postgres } from "@strata/postgres/Postgres"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as ClientAddress from "@strata/resilience/limits/ClientAddress"
import * as Quota from "@strata/resilience/limits/Quota"
import * as RateLimit from "@strata/resilience/limits/RateLimit"
import * as FairScheduler from "@strata/resilience/scheduling/FairScheduler"
import * as Priority from "@strata/resilience/scheduling/Priority"
import * as LoadShedding from "@strata/resilience/shedding/LoadShedding"
import * as Pressure from "@strata/resilience/shedding/Pressure"
import * as PressureSensors from "@strata/resilience/shedding/PressureSensors"
import * as Stackless from "@strata/resilience/Stackless"
import { Clock } from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpApi from "effect/http-api/HttpApi"
import * as FindMyWay from "effect/http/FindMyWay"
import * as HttpEffect from "effect/http/HttpEffect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { AdmissionSettings } from "./AdmissionConfig.ts"
import * as HttpGate from "./HttpGate.ts"
import * as KnownCallers from "./KnownCallers.ts"
import * as Refusals from "./Refusals.ts"
import { ServerConfig } from "./ServerConfig.ts"

// --------------------------------------------------------------------------------------------------------- layers

/**
 * Load of this process: its event loop, its processors, its memory, and how long its statements wait for a connection.
 *
 * @category layers
 * @since 0.1.0
 */
export const sheddingLayer = Layer.unwrap(Effect.gen(function*() {
  const { admission: { shedding } } = yield* ServerConfig
  const { longestWait } = yield* Postgres
  return LoadShedding.layer({
    ...shedding,
    sensors: [
      PressureSensors.eventLoop,
      PressureSensors.cpu,
      PressureSensors.memory,
      Pressure.poolWait({ waited: longestWait })
    ]
  })
}))

/**
 * Admits requests.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = Layer.effect(
  Api.Admission,
  Effect.gen(function*() {
    const { admission } = yield* ServerConfig
    const limits = yield* RateLimit.RateLimit
    const shedding = yield* LoadShedding.LoadShedding
    const scheduler = yield* FairScheduler.make({
      ...admission.requests,
      quota: yield* Quota.make({ everyone: admission.quota })
    })

    const { enabled, retryAfter } = admission.shedding
    const entrance = new Entrance(yield* Clock)
    const callers = yield* KnownCallers.KnownCallers
    const decided = new WeakSet<object>()
    // What would be refused below is refused by the gate, before anything is made of it. Whatever else is wrong with a request is
    // told below.
    yield* (yield* HttpGate.HttpGate).install((request) => {
      const principal = callers.find(request.headers)
      const ofEndpoint = classes.find(request.method ?? "", request.url ?? "")?.handler
      if (principal === undefined || ofEndpoint === undefined) return undefined
      const priority = classOf(request.headers[Api.priorityHeader], principal, ofEndpoint)
      if (priority === undefined) return undefined
      if (enabled && priority !== "P0" && entrance.isCrowded(scheduler.free())) {
        return { detail: overloaded, retryAfter: seconds(retryAfter) }
      }
      const crowd = scheduler.refusal(priority)
      if (crowd !== undefined) return { detail: crowded, retryAfter: seconds(crowd.retryAfter) }
      const refusal = shedding.decide({ priority, tenant: principal.tenant })
      if (refusal !== undefined) return { detail: overloaded, retryAfter: seconds(refusal.retryAfter) }
      entrance.enter()
      decided.add(request)
      return undefined
    })

    return Effect.fnUntraced(function*(handler, { endpoint, group }) {
      const request = yield* HttpServerRequest.HttpServerRequest
      const principal = yield* Principal.CurrentPrincipal
      const ofEndpoint = urgencyOf(endpoint.method, Context.merge(group.annotations, endpoint.annotations))
      const priority = classOf(request.headers[Api.priorityHeader], principal, ofEndpoint)
      if (priority === undefined) {
        return yield* Refusals.mistake(`headers.${Api.priorityHeader}`, "Expected a whole number from 0 to 10")
      }
      const timeout = yield* timeOf(request, admission.requestTimeout)

      const charged = limits.consume(chargesOf(request, principal, admission), { priority }).pipe(
        Effect.tap((decision) => showLimits(RateLimit.headers(decision))),
        Effect.tapError(({ reason }) =>
          reason._tag === "RateLimitExceeded" ? showLimits(RateLimit.headers(reason)) : Effect.void
        )
      )
      const { tenant } = principal
      const placed = scheduler.run({ priority, tenant, name: `${group.identifier}.${endpoint.name}` })(handler)
      return yield* shedding.protect(
        Effect.andThen(charged, Deadline.within(timeout)(placed)),
        { priority, tenant, isDecided: decided.has(request.source) }
      ).pipe(Effect.catchTags({
        Shed: shed,
        RateLimitError: limited,
        QuotaExceeded: overQuota,
        SchedulerFull: full,
        DeadlineExceeded: late
      }))
    })
  })
)

// ------------------------------------------------------------------------------------------------------- entrance

/** How long a turn of the event loop may take, in nanoseconds: everybody waits for it, the most urgent too. */
const turnLength = 25_000_000n

/** Bounds of what is let in by a turn. */
const perTurn = { least: 2, most: 1024 }

/**
 * Lets in as many requests by a turn of the event loop as keep it short. What the loop does not get to waits in the kernel, where
 * no queue of ours sees it: the length of its turns is what tells.
 */
class Entrance {
  readonly #clock: Clock
  #allowed = perTurn.most
  #entered = 0
  #since = 0n

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Where there are free slots, a turn that is long is long by refusals. */
  isCrowded(free: number): boolean {
    return this.#entered >= Math.max(this.#allowed, free)
  }

  enter(): void {
    if (this.#entered++ > 0) return
    this.#since = this.#clock.monotonicTimeNanosUnsafe()
    setImmediate(this.#endTurn)
  }

  readonly #endTurn = (): void => {
    const took = this.#clock.monotonicTimeNanosUnsafe() - this.#since
    // What would have fit into a turn; after a short one, half as many again.
    this.#allowed = took > turnLength
      ? Math.max(perTurn.least, Math.floor(this.#entered * Number(turnLength) / Number(took)))
      : Math.min(perTurn.most, Math.ceil(this.#allowed * 1.5))
    this.#entered = 0
  }
}

// ------------------------------------------------------------------------------------------------------- requests

/** The class of an endpoint's requests, unless they say something else. */
const urgencyOf = (method: string, annotations: Context.Context<never>): Priority.Priority =>
  Context.get(annotations, Api.Urgency) ?? (method === "GET" ? "P2" : "P1")

/** That of each endpoint that asks for admission. */
const classes = FindMyWay.make<Priority.Priority>()
HttpApi.reflect(StrataApi, {
  onGroup: () => {},
  onEndpoint: ({ endpoint, mergedAnnotations, middleware }) => {
    if (![...middleware].some(({ key }) => key === Api.Admission.key)) return
    classes.on(endpoint.method, endpoint.path as FindMyWay.PathInput, urgencyOf(endpoint.method, mergedAnnotations))
  }
})

/** What a request's header makes of it; `undefined` where that makes no sense. */
const classOf = (
  header: string | ReadonlyArray<string> | undefined,
  principal: Principal.Principal,
  ofEndpoint: Priority.Priority
): Priority.Priority | undefined => {
  if (header === undefined) return ofEndpoint
  const asked = typeof header === "string" && /^[0-9]{1,2}$/.test(header)
    ? Priority.fromNumber(Number(header))
    : undefined
  if (asked === undefined) return undefined
  return Principal.mayActAs(principal, "admin") || asked > ofEndpoint ? asked : ofEndpoint
}

const timeOf = (request: HttpServerRequest.HttpServerRequest, atMost: Duration.Duration) =>
  Effect.suspend(() => {
    const text = request.headers[Deadline.header]
    if (text === undefined) return Effect.succeed(atMost)
    return Option.match(Deadline.fromHeader(text, { atMost }), {
      onSome: Effect.succeed,
      onNone: () =>
        Effect.fail(Refusals.mistake(`headers.${Deadline.header}`, "Expected a whole number of milliseconds"))
    })
  })

/** All callers, this caller, and their address unless it is the machine's own. */
const chargesOf = (
  request: HttpServerRequest.HttpServerRequest,
  { subject, tenant }: Principal.Principal,
  { global, perIp, perUser }: AdmissionSettings
): ReadonlyArray<RateLimit.Charge> => {
  const charges: Array<RateLimit.Charge> = [{ limit: global }, { limit: perUser, key: `${tenant}/${subject}` }]
  return ClientAddress.isLoopback(request)
    ? charges
    : [...charges, { limit: perIp, key: ClientAddress.keyOfRequest(request) }]
}

// ------------------------------------------------------------------------------------------------------- answers

const showLimits = (headers: Readonly<Record<string, string>>) =>
  HttpEffect.appendPreResponseHandler((_, response) => Effect.succeed(HttpServerResponse.setHeaders(response, headers)))

/** Whole seconds. What would have to wait for ever is told to come again in an hour. */
const seconds = (duration: Duration.Duration): number =>
  Math.min(3600, Math.max(1, Math.ceil(Duration.toSeconds(duration))))

const refuse = <E extends Error>(error: () => E) => Effect.fail(Stackless.make(error))

const overloaded = "The server has more to do than it can. Nothing was begun for this request: try again later."
const crowded = "Too many requests of its class wait already. Nothing was begun for this one: try again later."

const shed = (error: LoadShedding.Shed) =>
  refuse(() => new ServiceUnavailable({ detail: overloaded, retryAfter: seconds(error.retryAfter) }))

/**
 * The answer to a request above a limit.
 *
 * @category conversions
 * @since 0.1.0
 */
export const limited = (
  { reason }: RateLimit.RateLimitError
): Effect.Effect<never, TooManyRequests | ServiceUnavailable> => {
  switch (reason._tag) {
    case "RateLimitExceeded":
      return refuse(() =>
        new TooManyRequests({
          detail: `Too many requests: the limit ${reason.tightest.limit} is used up`,
          retryAfter: seconds(reason.retryAfter)
        })
      )
    case "RateLimitUnavailable":
      return Effect.fail(new ServiceUnavailable({ detail: reason.message, retryAfter: 1 }))
    case "InvalidCharge":
      return Effect.die(reason)
  }
}

const overQuota = ({ message, retryAfter }: Quota.QuotaExceeded) =>
  refuse(() => new TooManyRequests({ detail: message, retryAfter: seconds(retryAfter) }))

const full = (error: FairScheduler.SchedulerFull) =>
  refuse(() => new ServiceUnavailable({ detail: crowded, retryAfter: seconds(error.retryAfter) }))

const late = (error: Deadline.DeadlineExceeded) =>
  Effect.fail(
    new ServiceUnavailable({
      detail: `${error.message}. A write may have taken effect: repeat it under its Idempotency-Key.`,
      retryAfter: 1
    })
  )
