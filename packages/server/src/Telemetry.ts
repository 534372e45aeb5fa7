/**
 * Where logs, traces and metrics go.
 *
 * **Details**
 *
 * Logs are JSON lines, or readable on a terminal. When `OTEL_EXPORTER_OTLP_ENDPOINT` is set, logs, traces and metrics are also
 * sent there by Effect's own exporter, which reads OpenTelemetry's variables: `OTEL_SERVICE_NAME` (default `strata`),
 * `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_*`, `OTEL_TRACES_EXPORTER`, `OTEL_BSP_*` and the like.
 * `OTEL_EXPORTER_OTLP_PROTOCOL` is `http/json` or `http/protobuf` (the default).
 *
 * @since 0.1.0
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Otlp from "effect/observability/Otlp"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as Option from "effect/Option"
import * as Stdio from "effect/Stdio"
import { explain, ServerConfig } from "./ServerConfig.ts"
import { version } from "./Version.ts"

/**
 * Logs on standard output.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerLogger = Layer.unwrap(Effect.gen(function*() {
  const { logFormat, production } = yield* ServerConfig
  const terminal = yield* Effect.flatMap(Stdio.Stdio, (stdio) => stdio.stdoutIsTerminal)
  const format = Option.getOrElse(logFormat, () => terminal && !production ? "pretty" : "json")
  return Logger.layer([format === "json" ? Logger.consoleJson : Logger.consolePretty()])
})).pipe(Layer.provide(NodeStdio.layer))

/** What OpenTelemetry has as its defaults, and the service's name. */
const defaults = ConfigProvider.layerAdd(ConfigProvider.fromUnknown({
  OTEL_SERVICE_NAME: "strata",
  OTEL_TRACES_EXPORTER: "otlp",
  OTEL_LOGS_EXPORTER: "otlp",
  OTEL_METRICS_EXPORTER: "otlp"
}))

const protocol = Config.Literals(["http/json", "http/protobuf"], "OTEL_EXPORTER_OTLP_PROTOCOL").pipe(
  Config.withDefault("http/protobuf")
)

/**
 * Exports to the OTLP endpoint of the environment; nothing without one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerOtlp = Layer.unwrap(Effect.gen(function*() {
  const { telemetry } = yield* ServerConfig
  if (!telemetry) return Layer.empty
  const serialization = (yield* Effect.mapError(protocol, explain)) === "http/json"
    ? OtlpSerialization.layerJson
    : OtlpSerialization.layerProtobuf
  return Otlp.layerFromConfig({ resource: { serviceVersion: version }, loggerMergeWithExisting: true }).pipe(
    Layer.provide([serialization, NodeHttpClient.layerUndici, defaults])
  )
}))

/**
 * Both.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = layerOtlp.pipe(Layer.provideMerge(layerLogger))
