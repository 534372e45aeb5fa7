/**
 * Settings of servers that are started for a test: half of the processes that a server starts with do nothing here, and starting one
 * takes as long as a hundred statements.
 *
 * @internal
 */
export const fewProcesses = {
  io_method: "sync",
  max_logical_replication_workers: "0",
  max_parallel_workers_per_gather: "0"
}
