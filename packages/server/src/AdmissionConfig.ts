/**
 * The numbers of admission, from the environment.
 *
 * @since 0.1.0
 */
import * as Quota from "@strata/resilience/limits/Quota"
import * as RateLimit from "@strata/resilience/limits/RateLimit"
import * as FairScheduler from "@strata/resilience/scheduling/FairScheduler"
import * as LoadShedding from "@strata/resilience/shedding/LoadShedding"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import type * as IpNetwork from "effect/net/IpNetwork"
import * as Schema from "effect/Schema"

/**
 * The numbers of admission.
 *
 * @category models
 * @since 0.1.0
 */
export interface AdmissionSettings {
  /** `STRATA_LIMIT_GLOBAL`: requests of all callers, as `10000/20000`: a second, and at once. */
  readonly global: RateLimit.Limit
  /** `STRATA_LIMIT_PER_USER`: of each caller. Default: `100/200`. */
  readonly perUser: RateLimit.Limit
  /** `STRATA_LIMIT_PER_IP`: from each address. Default: `50/100`. */
  readonly perIp: RateLimit.Limit
  /** `STRATA_LIMIT_STRANGERS`: requests without a known credential from each address. Default: `5/50`. */
  readonly strangers: RateLimit.Limit
  /** `STRATA_REQUEST_TIMEOUT`: how long a request may take. Default: 30 seconds. */
  readonly requestTimeout: Duration.Duration
  /** `STRATA_TRUSTED_PROXIES`: the networks whose `X-Forwarded-…` headers are believed, by commas. Default: none. */
  readonly trustedProxies: ReadonlyArray<IpNetwork.IpNetwork>
  /**
   * `STRATA_REQUESTS_…`: how many requests run at once and wait, and the weights of their classes. See `FairScheduler.config`.
   * Default: 32 run, and 1,000 of each class wait, none much longer than 250 milliseconds.
   */
  readonly requests: FairScheduler.Options
  /** `STRATA_QUOTA_…`: what each tenant may have in flight, waiting and a second. See `Quota.config`. Default: no limits. */
  readonly quota: Quota.Limits
  /** `STRATA_SHED_…`: see `LoadShedding.config`. */
  readonly shedding: LoadShedding.Settings
}

/** As many as keep the process busy. With more at once each takes longer, the most urgent ones too, and no more are answered. */
const requests: FairScheduler.Options = { name: "requests", slots: 32, maxWait: "250 millis" }

/** Whoever guesses keys is slowed down, and is refused without the store of the limits too. */
const strangers = RateLimit.make({
  name: "strangers",
  rate: 5,
  burst: 50,
  keyOf: "client address",
  onStoreError: "refuse"
})

/**
 * Reads the numbers.
 *
 * @category config
 * @since 0.1.0
 */
export const config: Config.Config<AdmissionSettings> = Config.all({
  global: RateLimit.config("STRATA_LIMIT_GLOBAL", RateLimit.global),
  perUser: RateLimit.config("STRATA_LIMIT_PER_USER", RateLimit.perUser),
  perIp: RateLimit.config("STRATA_LIMIT_PER_IP", RateLimit.perIp),
  strangers: RateLimit.config("STRATA_LIMIT_STRANGERS", strangers),
  requestTimeout: Config.Duration("STRATA_REQUEST_TIMEOUT").pipe(Config.withDefault(Duration.seconds(30))),
  trustedProxies: Config.Array(Schema.IpNetworkFromString, "STRATA_TRUSTED_PROXIES").pipe(Config.withDefault([])),
  requests: FairScheduler.config("STRATA_REQUESTS", requests),
  quota: Quota.config("STRATA_QUOTA"),
  shedding: LoadShedding.config
})
