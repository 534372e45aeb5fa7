import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import * as Handling from "@strata/queues/consuming/Handling"
import type { Queue } from "@strata/queues/Queue"
import * as QueuePolicies from "@strata/queues/QueuePolicies"
import * as Queues from "@strata/queues/Queues"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import * as Tracer from "effect/Tracer"
import { collect, Database, declared, many } from "./fixture.ts"

/** What is measured of a queue, by name and what else tells series apart. */
const measured = Effect.fnUntraced(function*({ name }: Queue<{ readonly n: number }>) {
  const series = (yield* Metric.snapshot).filter(({ attributes }) =>
    attributes?.["messaging.destination.name"] === name
  )
  const of = (id: string, key?: string, value?: string) => {
    const found = series.find((one) => one.id === id && (key === undefined || one.attributes?.[key] === value))?.state
    return found !== undefined && "count" in found
      ? Number(found.count)
      : found !== undefined && "value" in found
      ? Number(found.value)
      : undefined
  }
  return of
})

const tracing = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { tracer, processed: () => spans.filter(({ name }) => name.startsWith("process ")) }
}

layer(Database, { excludeTestServices: true })("what is measured of a queue", (it) => {
  it.effect("is how many messages were sent, claimed and handled, what became of them, and how long it took", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("measured", { retry: { attempts: 2, base: "1 millis", total: "1 minute" } })
      yield* queues.send(queue, many(10))
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.forkScoped(
          QueueWorker.run(
            queue,
            ({ attempt, payload: { n } }) =>
              Effect.suspend((): Effect.Effect<void, string | Handling.Reject> => {
                if (n === 0) {
                  return Effect.fail("for ever")
                }
                if (n === 1 && attempt === 1) return Effect.fail("once")
                return n === 2 ? Effect.fail(new Handling.Reject({ reason: "never" })) : Effect.void
              })
          )
        )
        yield* Effect.repeat(queues.stats(queue), { until: ({ dead, done }) => dead + done === 10 })
      }))
      const of = yield* measured(queue)
      strictEqual(of("messaging.client.sent.messages"), 10)
      strictEqual(of("messaging.client.consumed.messages"), 12)
      strictEqual(of("messaging.process.duration"), 12)
      strictEqual(of("strata_queue_wait_seconds"), 10)
      deepStrictEqual(
        ["done", "retried", "released", "dead"].map((outcome) => of("strata_queue_settled_total", "outcome", outcome)),
        [8, 2, 0, 2]
      )
      strictEqual((of("messaging.client.operation.duration", "messaging.operation.name", "claim") ?? 0) > 0, true)
      strictEqual((of("messaging.client.operation.duration", "messaging.operation.name", "settle") ?? 0) > 0, true)
      strictEqual(of("strata_queue_running"), 0)
    }))

  it.effect("is how many run and how many are held, over all workers of the process, while they do", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("running")
      yield* queues.send(queue, many(20))
      yield* Effect.scoped(Effect.gen(function*() {
        const work = QueueWorker.run(queue, () => Effect.never, { concurrency: 2, prefetch: 4 })
        yield* Effect.forkScoped(work)
        yield* Effect.forkScoped(work)
        // The database knows of a lease before the worker has read that it has it.
        const all = yield* Effect.repeat(measured(queue), {
          schedule: Schedule.spaced("5 millis"),
          until: (of) => (of("strata_queue_running") ?? 0) + (of("strata_queue_held") ?? 0) === 12
        })
        strictEqual(all("strata_queue_running"), 4)
        strictEqual(all("strata_queue_held"), 8)
        strictEqual((yield* queues.stats(queue)).leased, 12)
      }))
      const of = yield* measured(queue)
      strictEqual(of("strata_queue_held"), 0)
    }).pipe(
      Effect.provideService(QueuePolicies.QueuePolicies, { ...QueuePolicies.defaults, stop: Duration.millis(50) })
    ))
})

layer(Database, { excludeTestServices: true })("a trace", (it) => {
  it.effect("goes on from the sender of a message to its handler, and to what that sends", () =>
    Effect.gen(function*() {
      const { processed, tracer } = tracing()
      yield* Effect.gen(function*() {
        const queues = yield* Queues.Queues
        const first = yield* declared("traced-first")
        const second = yield* declared("traced-second")
        const request = yield* Effect.withSpan(
          Effect.andThen(queues.send(first, [{ payload: { n: 1 }, correlationId: "c" }]), Effect.currentSpan),
          "request",
          { root: true }
        )
        yield* Effect.forkScoped(QueueWorker.run(first, () => queues.send(second, many(1))))
        yield* collect(second, 1)
        yield* Effect.repeat(queues.stats(second), { until: ({ done }) => done === 1 })
        const [one, two] = processed()
        strictEqual(one?.name, "process traced-first")
        strictEqual(one?.kind, "consumer")
        strictEqual(one?.traceId, request.traceId)
        strictEqual(one?.attributes.get("messaging.message.conversation_id"), "c")
        strictEqual(one?.attributes.get("messaging.destination.name"), "traced-first")
        strictEqual(two?.traceId, request.traceId)
      }).pipe(Effect.scoped, Effect.provideService(Tracer.Tracer, tracer))
    }))

  it.effect("of a batch that several sent is its own, and links to theirs", () =>
    Effect.gen(function*() {
      const { processed, tracer } = tracing()
      yield* Effect.gen(function*() {
        const queues = yield* Queues.Queues
        const queue = yield* declared("traced-batch")
        const request = (name: string) =>
          Effect.withSpan(Effect.andThen(queues.send(queue, many(2)), Effect.currentSpan), name, { root: true })
        const traces = [(yield* request("one")).traceId, (yield* request("two")).traceId]
        yield* Effect.forkScoped(QueueWorker.runBatches(queue, () => Effect.void, { size: 10, concurrency: 1 }))
        yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 4 })
        const [span] = processed()
        strictEqual(span?.attributes.get("messaging.batch.message_count"), 4)
        strictEqual(traces.includes(span?.traceId ?? ""), false)
        deepStrictEqual(span?.links.map(({ span }) => span.traceId), traces)
      }).pipe(Effect.scoped, Effect.provideService(Tracer.Tracer, tracer))
    }))

  it.effect("goes on where nobody keeps spans, so that whoever does later finds the whole of it", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("untraced")
      const request = yield* Effect.withSpan(
        Effect.andThen(queues.send(queue, many(1)), Effect.currentSpan),
        "request",
        { root: true }
      )
      const traces: Array<string> = []
      yield* Effect.forkScoped(
        QueueWorker.run(queue, () => Effect.map(Effect.currentParentSpan, ({ traceId }) => traces.push(traceId)))
      )
      yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 1 })
      deepStrictEqual(traces, [request.traceId])
    }).pipe(Effect.scoped))
})
