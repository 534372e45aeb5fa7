/**
 * Read models, operated: `npm run --silent projections -- list|status|rebuild|verify|switch|rollback|drop|pause|resume|park|retry|skip
 * [NAME …] [--json]`.
 *
 * All of it works while servers run the projections. `rebuild` works along, so that it comes to its end without them too; it can be
 * interrupted, and goes on when it is run again. With `--json` every line on standard output is an object. Exit codes: 0 done,
 * 1 failed, 2 usage, 3 `verify` found differences, 5 partial: of several something was not done, or keys are parked; 130
 * interrupted.
 */
import { ConversationProjections } from "@strata/conversations/read/ConversationProjections"
import { Projections } from "@strata/projections/Projections"
import type { GenerationStatus, Status } from "@strata/projections/ProjectionStatus"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { projections } from "./application.ts"
import { exitWith, fraction, print, progressBar } from "./output.ts"
import { run } from "./program.ts"

// ------------------------------------------------------------------------------------------------------ arguments

const known = ConversationProjections.map(({ name }) => name)
const one = Argument.Literals("NAME", known).pipe(Argument.withDescription("A projection"))
const several = Argument.variadic(one, { min: 1 })
const json = Flag.Boolean("json").pipe(Flag.withDescription("Print lines of JSON"), Flag.withDefault(false))
const generation = Flag.Int("generation").pipe(
  Flag.withDescription("The number of a generation. Default: the newest that is being built"),
  Flag.optional
)

/** Some of several could not be done. */
class Partial extends Schema.TaggedError<Partial>()("Partial", { failed: Schema.Int, of: Schema.Int }) {
  override get message() {
    return `${this.failed} of ${this.of} could not be done`
  }
}

/** Does something with each, also when it cannot be done with one before; alone, its failure is the program's. */
const each = <A, E extends { readonly message: string }, R>(
  things: ReadonlyArray<A>,
  act: (thing: A) => Effect.Effect<unknown, E, R>
): Effect.Effect<void, E | Partial, R> => {
  if (things.length === 1) return Effect.asVoid(act(things[0]!))
  return Effect.partition(things, (thing) => Effect.tapError(act(thing), ({ message }) => Console.error(message))).pipe(
    Effect.flatMap(([, failures]) => {
      if (failures.length === 0) return Effect.void
      return failures.length < things.length
        ? exitWith(5)
        : Effect.fail(new Partial({ failed: failures.length, of: things.length }))
    })
  )
}

/** Says what was done. */
const say = (options: { readonly json: boolean }, value: Readonly<Record<string, unknown>>, text: string) =>
  options.json ? print(value) : Console.log(text)

// --------------------------------------------------------------------------------------------------------- looking

const seconds = (value: number) => value < 1 ? "less than a second" : `${Math.ceil(value)} s`

const describe = ({ lag, lagSeconds, name, parked, position, state, version }: Status) =>
  `${name} v${version}: ${state} at ${position}${lag === 0n ? "" : `, ${lag} facts and ${seconds(lagSeconds)} behind`}${
    parked === 0 ? "" : `, ${parked} keys parked`
  }`

const describeGeneration = (each: GenerationStatus) =>
  `  ${each.number} (v${each.version}) ${each.state}: at ${each.position}, ${each.lag} facts to go${
    each.rate === null ? "" : `, ${Math.round(each.rate)} facts/s`
  }${each.etaSeconds === null || each.lag === 0n ? "" : `, ${seconds(each.etaSeconds)} left`}${
    each.parked === 0 ? "" : `, ${each.parked} keys parked`
  }${each.error === null ? "" : `; ${each.error}`} [${each.schema}]`

const list = Command.make("list", { json }).pipe(
  Command.withDescription("How far each projection is"),
  Command.withHandler((options) =>
    Effect.gen(function*() {
      for (const { generations: _, ...status } of yield* (yield* Projections).status) {
        yield* say(options, status, describe({ ...status, generations: [] }))
      }
    }).pipe(Effect.provide(projections(false)))
  )
)

const status = Command.make("status", { names: Argument.variadic(one), json }).pipe(
  Command.withDescription("How far projections and their generations are"),
  Command.withHandler(({ names, ...options }) =>
    Effect.gen(function*() {
      for (const status of yield* (yield* Projections).status) {
        if (names.length > 0 && !names.includes(status.name)) continue
        yield* say(options, status as {}, [describe(status), ...status.generations.map(describeGeneration)].join("\n"))
      }
    }).pipe(Effect.provide(projections(false)))
  )
)

const park = Command.make("park", { names: several, json }).pipe(
  Command.withDescription("The keys that wait, with the fact that cannot be applied and why"),
  Command.withHandler(({ names, ...options }) =>
    Effect.gen(function*() {
      const { operate } = yield* Projections
      for (const name of names) {
        for (const { error, generation, held, key, position, ...more } of yield* operate.parked(name)) {
          yield* say(
            options,
            { projection: name, generation, key, position, error, held, attempts: more.attempts },
            `${name} ${key}: fact ${position}, and ${held} after it; ${error} (generation ${generation})`
          )
        }
      }
    }).pipe(Effect.provide(projections(false)))
  )
)

// -------------------------------------------------------------------------------------------------------- building

const rebuild = Command.make("rebuild", {
  names: several,
  partitions: Flag.Int("partitions").pipe(
    Flag.withDescription("Parts that are built at a time, by so many processes. Default: 4"),
    Flag.optional
  ),
  rate: Flag.Int("rate").pipe(Flag.withDescription("Facts a second at most"), Flag.optional),
  manual: Flag.Boolean("manual").pipe(
    Flag.withDescription("Leave it to `switch` when readers see it"),
    Flag.withDefault(false)
  ),
  json
}).pipe(
  Command.withDescription("Build projections anew beside what readers see, and switch to it"),
  Command.withHandler((options) =>
    each(options.names, (name) => build(name, options)).pipe(
      Effect.provide(projections(true)),
      Effect.onInterrupt(() => Console.error(`Go on with: npm run projections -- rebuild ${options.names.join(" ")}`))
    )
  )
)

interface BuildFlags {
  readonly partitions: Option.Option<number>
  readonly rate: Option.Option<number>
  readonly manual: boolean
  readonly json: boolean
}

const build = Effect.fnUntraced(function*(name: string, options: BuildFlags) {
  const { operate, status } = yield* Projections
  const { number } = yield* operate.rebuild(name, {
    partitions: Option.getOrUndefined(options.partitions),
    rate: Option.getOrUndefined(options.rate),
    switch: options.manual ? "manual" : "automatic"
  })
  const bar = progressBar(process.stderr)
  const look = Effect.gen(function*() {
    const { generations, head } = (yield* status).find((status) => status.name === name)!
    const generation = generations.find((each) => each.number === number)
    if (generation !== undefined) {
      if (options.json) yield* print({ type: "progress", projection: name, head, ...generation })
      else bar.show(fraction(generation.position, head), describeGeneration(generation).trim())
    }
    return generation
  })
  const isDone = (generation: GenerationStatus | undefined) =>
    generation?.state !== "building" || generation.manual && generation.lag === 0n
  const last = yield* Effect.repeat(Pace.after("300 millis")(look), { until: isDone }).pipe(
    Effect.ensuring(Effect.sync(bar.clear))
  )
  const parked = last?.parked ?? 0
  yield* say(
    options,
    { type: "done", projection: name, generation: number, state: last?.state ?? "dropped", parked },
    `${name}: generation ${number} is ${last?.state === "live" ? "what readers see" : last?.state ?? "dropped"}${
      parked === 0 ? "" : `; ${parked} keys are parked: npm run projections -- park ${name}`
    }`
  )
  if (parked > 0) yield* exitWith(5)
})

const verify = Command.make("verify", { names: several, generation, json }).pipe(
  Command.withDescription("Compare a generation with the one that readers see"),
  Command.withHandler(({ names, ...options }) =>
    each(
      names,
      Effect.fnUntraced(function*(name) {
        const { operate } = yield* Projections
        const report = yield* operate.verify(name, Option.getOrUndefined(options.generation))
        const differing = report.tables.filter((table) => table.differing > 0n)
        yield* say(
          options,
          report as {},
          [
            `${name}: generation ${report.other} ${report.equal ? "is equal to" : "differs from"} ${report.live}`,
            ...differing.map(({ differing, keys, table }) =>
              `  ${table}: ${differing} keys differ: ${keys.join(", ")}`
            ),
            ...report.unmatched.map((table) => `  ${table}: is in one of them only`)
          ].join("\n")
        )
        if (!report.equal) yield* exitWith(3)
      })
    ).pipe(Effect.provide(projections(false)))
  )
)

// ------------------------------------------------------------------------------------------------------- switching

const switchTo = Command.make("switch", { name: one, generation, json }).pipe(
  Command.withDescription("Let readers see another generation"),
  Command.withHandler(({ name, ...options }) =>
    Effect.gen(function*() {
      const { operate } = yield* Projections
      const { number } = yield* operate.switchTo(name, Option.getOrUndefined(options.generation))
      yield* say(options, { projection: name, live: number }, `Readers of ${name} see generation ${number}`)
    }).pipe(Effect.provide(projections(false)))
  )
)

const rollback = Command.make("rollback", { names: several, json }).pipe(
  Command.withDescription("Let readers see the generation that they saw before"),
  Command.withHandler(({ names, ...options }) =>
    each(
      names,
      Effect.fnUntraced(function*(name) {
        const { number } = yield* (yield* Projections).operate.rollback(name)
        yield* say(options, { projection: name, live: number }, `Readers of ${name} see generation ${number} again`)
      })
    ).pipe(Effect.provide(projections(false)))
  )
)

const drop = Command.make("drop", {
  name: one,
  generation: Argument.Int("GENERATION").pipe(Argument.withDescription("The number of a generation")),
  json
}).pipe(
  Command.withDescription("Remove a generation that readers do not see"),
  Command.withHandler(({ generation, name, ...options }) =>
    Effect.gen(function*() {
      yield* (yield* Projections).operate.drop(name, generation)
      yield* say(options, { projection: name, dropped: generation }, `Generation ${generation} of ${name} is gone`)
    }).pipe(Effect.provide(projections(false)))
  )
)

const pausing = (which: "pause" | "resume", description: string, done: string) =>
  Command.make(which, { names: several, json }).pipe(
    Command.withDescription(description),
    Command.withHandler(({ names, ...options }) =>
      each(
        names,
        Effect.fnUntraced(function*(name) {
          yield* (yield* Projections).operate[which](name)
          yield* say(options, { projection: name, [which]: true }, `${name} ${done}`)
        })
      ).pipe(Effect.provide(projections(false)))
    )
  )

const pause = pausing("pause", "Let every process stop applying facts", "is paused")
const resume = pausing("resume", "Let processes go on", "goes on")

// ---------------------------------------------------------------------------------------------------- parked keys

const retry = Command.make("retry", {
  name: one,
  keys: Argument.String("KEY").pipe(
    Argument.withDescription("Keys that wait, as `park` tells them. Default: all"),
    Argument.variadic()
  ),
  json
}).pipe(
  Command.withDescription("Apply the facts of parked keys again, and let them go on"),
  Command.withHandler(({ keys, name, ...options }) =>
    Effect.gen(function*() {
      const { operate } = yield* Projections
      const all = keys.length > 0 ? keys : [...new Set((yield* operate.parked(name)).map(({ key }) => key))]
      yield* each(all, (key) =>
        Effect.andThen(
          operate.retry(name, key),
          say(options, { projection: name, key, released: true }, `${name} ${key} goes on`)
        ))
    }).pipe(Effect.provide(projections(false)))
  )
)

const skip = Command.make("skip", {
  name: one,
  keys: Argument.String("KEY").pipe(
    Argument.withDescription("Keys that wait, as `park` tells them"),
    Argument.variadic({ min: 1 })
  ),
  json
}).pipe(
  Command.withDescription("Leave out the fact that cannot be applied, and let parked keys go on"),
  Command.withHandler(({ keys, name, ...options }) =>
    each(
      keys,
      Effect.fnUntraced(function*(key) {
        yield* (yield* Projections).operate.skip(name, key)
        yield* say(options, { projection: name, key, skipped: true }, `${name} ${key} goes on without the fact`)
      })
    ).pipe(Effect.provide(projections(false)))
  )
)

export const program = Command.make("projections").pipe(
  Command.withDescription("Look at read models, build them anew, compare, switch, and let parked keys go on"),
  Command.withSubcommands([
    list,
    status,
    rebuild,
    verify,
    switchTo,
    rollback,
    drop,
    pause,
    resume,
    park,
    retry,
    skip
  ])
)

if (import.meta.main) run(program)
