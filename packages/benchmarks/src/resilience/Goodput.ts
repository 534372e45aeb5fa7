/**
 * `goodput`: what the HTTP server gets done in overload, when it sheds and when it does not.
 *
 * **Details**
 *
 * What the server sustains is measured once, by callers who wait for their answers. Then each round starts a server on a new
 * database, asks it little to see what a request takes when it is idle, and offers it one, two, five and ten times what it
 * sustains, one after the other, by callers who do not wait for each other.
 *
 * @since 0.1.0
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import { fileURLToPath } from "node:url"
import type * as Server from "../event-store/Server.ts"
import { BenchmarkError, failure, type Lane, type Sample, type Work } from "../Suite.ts"
import { factors } from "./Goals.ts"
import * as HttpServer from "./HttpServer.ts"
import * as Load from "./Load.ts"

/** Requests go to so many conversations. */
const conversations = 1000

/** Callers who find out what the server sustains. */
const callers = 64

/** Requests a second that leave it idle. */
const idleRate = 20

/** How long each part of a round takes, in times of what a lane runs. */
const lengths = { warm: 1, idle: 5, settle: 3, counted: 2 }

/**
 * The work. A quick one has one round of the same length, since a shorter one would end before the server sheds.
 *
 * @category works
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(server: Server.Server, options: { readonly quick: boolean }) {
  const services = yield* Effect.context<ChildProcessSpawner>()
  let runs = 0
  const start = Effect.fnUntraced(function*(sheds: boolean) {
    const name = `goodput_${++runs}`
    const http = yield* HttpServer.start({ url: yield* server.createDatabase(name), sheds })
    const call = makeCall(http, name)
    yield* call({ _tag: "Prepare" })
    return { call, settled: server.checkpoint }
  })

  const work: Work = {
    name: "goodput",
    rounds: options.quick ? 1 : undefined,
    lanes: Effect.gen(function*() {
      const sustained = yield* Effect.scoped(Effect.flatMap(start(false), findSustained))
      yield* Console.error(`  sustains ${Math.round(sustained)} requests a second`)
      return [{ system: "Strata", sheds: true }, { system: "Strata, shedding off", sheds: false }].map(
        ({ sheds, system }): Lane => ({
          system,
          run: (seconds, watch) =>
            Effect.scoped(Effect.gen(function*() {
              const { call, settled } = yield* start(sheds)
              const unit = options.quick ? seconds * 4 : seconds
              yield* call(open(sustained * 0.3, { settle: 0, seconds: lengths.warm * unit }))
              yield* settled
              return yield* watch(Effect.provide(overload({ call, system, sustained, unit }), services))
            })).pipe(Effect.provide(services))
        })
      )
    }).pipe(Effect.provide(services))
  }
  return work
})

type Call = (task: Load.Task) => Effect.Effect<Load.Result, BenchmarkError, ChildProcessSpawner>

const open = (
  rate: number,
  times: { readonly settle: number; readonly seconds: number; readonly urgent?: boolean }
): Load.Task => ({ _tag: "Open", rate, urgent: false, ...times })

/** Everybody waits for an answer before the next request, so nothing is offered that is not served. */
const findSustained = Effect.fnUntraced(function*({ call }: { readonly call: Call }) {
  yield* call({ _tag: "Closed", callers, seconds: 4 })
  const result = yield* call({ _tag: "Closed", callers, seconds: 4 })
  return Load.sum(result, ({ good }) => good) / result.seconds
})

const overload = Effect.fnUntraced(function*({ call, sustained, system, unit }: {
  readonly call: Call
  readonly system: string
  readonly sustained: number
  readonly unit: number
}) {
  const idle = yield* call(open(idleRate, { settle: 0.5, seconds: lengths.idle * unit, urgent: true }))
  const samples: Array<Sample> = [{ work: "P0 p99, idle", unit: "ms", value: idle.classes.P0.p99 }]
  yield* Console.error(`  ${system}, idle: ${describe(idle)}`)
  for (const factor of factors) {
    const times = { settle: lengths.settle * unit, seconds: lengths.counted * unit }
    const result = yield* call(open(sustained * factor, times))
    yield* Console.error(`  ${system}, ${factor} × ${Math.round(sustained)}/s: ${describe(result)}`)
    samples.push(...samplesOf(result, `@${factor}x`))
  }
  return samples
})

const samplesOf = (result: Load.Result, at: string): ReadonlyArray<Sample> => {
  const rate = (work: string, count: number): Sample => ({
    work: `${work}${at}`,
    unit: "ops/s",
    value: count / result.seconds
  })
  return [
    rate("offered", Load.sum(result, Load.offered)),
    rate("goodput", Load.sum(result, ({ good }) => good)),
    { work: `P0 p99${at}`, unit: "ms", value: result.classes.P0.p99 },
    ...Load.classes.flatMap(({ name }) => {
      const { good, refused } = result.classes[name]
      return [rate(`${name} answered`, good), rate(`${name} shed`, refused)]
    })
  ]
}

const describe = (result: Load.Result): string => {
  const rate = (count: number) => Math.round(count / result.seconds)
  const { P0 } = result.classes
  const offered = Load.sum(result, Load.offered)
  const good = Load.sum(result, ({ good }) => good)
  const perClass = Load.classes.map(({ name }) => {
    const { failed, good, late, refused, unsent } = result.classes[name]
    return `${name} ${[good, refused, late, failed, unsent].map(rate).join("/")}`
  })
  return `offered ${rate(offered)}/s, goodput ${rate(good)}/s, P0 ${P0.p50.toFixed(1)} ms, p99 ${
    P0.p99.toFixed(1)
  } ms; ` +
    `sent ${result.late.toFixed(1)} ms late; good/refused/late/failed/unsent a second: ${perClass.join(", ")}`
}

/** Does a task in a process of its own, and fails when the server did not understand it. */
const makeCall = ({ key, port }: HttpServer.HttpServer, database: string): Call => {
  let tasks = 0
  return Effect.fnUntraced(function*(task) {
    const spawner = yield* ChildProcessSpawner
    const label = `${database}, task ${++tasks}`
    const order = yield* encode({ port, key, label, conversations, task })
    const program = fileURLToPath(new URL("./callServer.ts", import.meta.url))
    const [line = ""] = yield* spawner.lines(
      ChildProcess.make(process.execPath, ["--conditions=strata:source", program, order], { stderr: "inherit" })
    )
    const result = yield* decode(line)
    const wrong = Load.sum(result, ({ wrong }) => wrong)
    if (wrong > 0) {
      return yield* new BenchmarkError({ message: `the server found ${wrong} requests to make no sense` })
    }
    return result
  }, Effect.mapError(failure("Calling the HTTP server")))
}

const encode = Schema.encodeEffect(Schema.fromJsonString(Load.Order))
const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Load.Result))
