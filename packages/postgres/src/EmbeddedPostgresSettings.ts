/**
 * The settings with which an embedded server is started.
 *
 * @since 0.1.0
 */

/**
 * For a small machine that also runs the application. Nothing here trades safety for speed.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultSettings: Readonly<Record<string, string>> = {
  max_connections: "100",
  shared_buffers: "256MB",
  max_wal_size: "2GB",
  wal_compression: "on",
  checkpoint_timeout: "15min",
  random_page_cost: "1.1",
  jit: "off",
  timezone: "UTC",
  log_timezone: "UTC",
  log_line_prefix: "%m [%p] ",
  log_min_messages: "warning",
  log_checkpoints: "off",
  log_statement: "none",
  // Of passwords that somebody sets.
  scram_iterations: "4096",
  listen_addresses: "127.0.0.1",
  unix_socket_directories: ""
}

/**
 * The command line of the server.
 *
 * @category constructors
 * @since 0.1.0
 */
export const serverArguments = (
  directory: string,
  port: number,
  settings: Readonly<Record<string, string>> | undefined
): ReadonlyArray<string> => [
  "-D",
  directory,
  ...Object.entries({ ...defaultSettings, ...settings, port: String(port) })
    .flatMap(([name, value]) => ["-c", `${name}=${value}`])
]
