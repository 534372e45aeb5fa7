import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import * as PostgresLayer from "@strata/postgres/Postgres"
import type { PostgresOptions } from "@strata/postgres/PostgresConfig"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as TcpProxy from "@strata/testing/TcpProxy"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"

const openssl = (...args: ReadonlyArray<string>) =>
  ChildProcess.make("openssl", args, { stdout: "ignore", stderr: "ignore" }).pipe(
    Effect.flatMap((process) => process.exitCode),
    Effect.tap((code) => Effect.sync(() => assert.strictEqual(Number(code), 0, args.join(" "))))
  )

/** An authority, and certificates by it for the server `localhost` and for the role `postgres`. */
const makeCertificates = Effect.fnUntraced(function*(directory: string) {
  const path = yield* Path.Path
  const file = (name: string) => path.join(directory, name)
  const authority = (name: string) =>
    openssl(
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"],
      ...["-subj", `/CN=${name}`, "-keyout", file(`${name}.key`), "-out", file(`${name}.crt`)]
    )
  const signed = Effect.fnUntraced(function*(name: string, commonName: string, extension: string) {
    yield* openssl(
      ...["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", `/CN=${commonName}`],
      ...["-addext", extension, "-keyout", file(`${name}.key`), "-out", file(`${name}.csr`)]
    )
    yield* openssl(
      ...["x509", "-req", "-in", file(`${name}.csr`), "-CA", file("authority.crt"), "-CAkey", file("authority.key")],
      ...["-CAcreateserial", "-days", "1", "-copy_extensions", "copy", "-out", file(`${name}.crt`)]
    )
  })
  yield* authority("authority")
  yield* authority("stranger")
  yield* signed("server", "localhost", "subjectAltName=DNS:localhost")
  yield* signed("client", "postgres", "extendedKeyUsage=clientAuth")
  return file
})

interface Encrypted {
  readonly server: PrivatePostgres.PrivatePostgres
  readonly file: (name: string) => string
}

class TlsServer extends Context.Service<TlsServer, Encrypted>()("test/TlsServer") {
  /** A server that speaks TLS, and asks clients on TLS for a certificate when the role is `certified`. */
  static readonly layer = Layer.effect(
    TlsServer,
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const server = yield* PrivatePostgres.make()
      yield* server.stop
      const owner = yield* fs.stat(path.join(server.dataDirectory, "PG_VERSION"))
      const file = yield* makeCertificates(server.dataDirectory)
      for (const name of ["server.key", "server.crt", "authority.crt"]) {
        yield* fs.chmod(file(name), 0o600)
        if (owner.uid._tag === "Some" && owner.gid._tag === "Some") {
          yield* fs.chown(file(name), owner.uid.value, owner.gid.value)
        }
      }
      const hba = path.join(server.dataDirectory, "pg_hba.conf")
      yield* fs.writeFileString(
        hba,
        `hostssl certified all 127.0.0.1/32 scram-sha-256 clientcert=verify-full\n${yield* fs.readFileString(hba)}`
      )
      yield* server.start({
        ssl: "on",
        ssl_cert_file: file("server.crt"),
        ssl_key_file: file("server.key"),
        ssl_ca_file: file("authority.crt")
      })
      const url = server.url
      yield* Effect.scoped(Effect.flatMap(connect({ url }), ({ sql }) => sql`create database certified`))
      return { server, file }
    })
  ).pipe(Layer.provideMerge(NodeServices.layer))
}

const connect = Effect.fnUntraced(function*(options: PostgresOptions) {
  return Context.get(yield* Layer.build(PostgresLayer.layer(options)), Postgres)
})

/** Whether the connections of these options are encrypted, or why there is none. */
const outcome = Effect.fnUntraced(
  function*(options: PostgresOptions) {
    const { server } = yield* TlsServer
    const { sql } = yield* connect({ url: server.url, startupTimeout: "1 millis", ...options })
    const [row] = yield* sql<{ readonly ssl: boolean }>`select ssl from pg_stat_ssl where pid = pg_backend_pid()`
    return row?.ssl === true ? "encrypted" : "plaintext"
  },
  Effect.scoped,
  Effect.catchTag("PostgresError", (error) => Effect.succeed(error.message))
)

layer(TlsServer.layer, { excludeTestServices: true, timeout: "60 seconds" })("TLS", (it) => {
  it.effect("disable, prefer and require do as they say, whoever the server is", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* outcome({ tls: "disable" }), "plaintext")
      assert.strictEqual(yield* outcome({}), "encrypted")
      assert.strictEqual(yield* outcome({ tls: "prefer" }), "encrypted")
      assert.strictEqual(yield* outcome({ tls: "require" }), "encrypted")
    }))

  it.effect("verify-ca checks who signed, and not for which host", () =>
    Effect.gen(function*() {
      const { file } = yield* TlsServer
      assert.strictEqual(
        yield* outcome({ tls: "verify-ca", tlsCa: file("authority.crt"), host: "127.0.0.1" }),
        "encrypted"
      )
      assert.include(yield* outcome({ tls: "verify-ca", tlsCa: file("stranger.crt") }), "No connection")
      assert.include(yield* outcome({ tls: "verify-ca" }), "No connection")
      assert.include(yield* outcome({ tls: "require", tlsCa: file("stranger.crt") }), "No connection")
    }))

  it.effect("verify-full checks the host as well", () =>
    Effect.gen(function*() {
      const { file } = yield* TlsServer
      const fs = yield* FileSystem.FileSystem
      const tlsCa = yield* fs.readFileString(file("authority.crt"))
      assert.strictEqual(yield* outcome({ tls: "verify-full", tlsCa, host: "localhost" }), "encrypted")
      assert.include(yield* outcome({ tls: "verify-full", tlsCa, host: "127.0.0.1" }), "altnames")
      assert.strictEqual(
        yield* outcome({ tls: "verify-full", tlsCa, host: "127.0.0.1", tlsServerName: "localhost" }),
        "encrypted"
      )
    }))

  it.effect("a client shows its certificate, also when the URL names the files", () =>
    Effect.gen(function*() {
      const { file, server } = yield* TlsServer
      const tls = { database: "certified", tls: "require" } as const
      assert.include(yield* outcome(tls), "certificate")
      assert.strictEqual(
        yield* outcome({ ...tls, tlsCert: file("client.crt"), tlsKey: Redacted.make(file("client.key")) }),
        "encrypted"
      )
      const url = new URL(Redacted.value(server.url))
      url.pathname = "/certified"
      url.host = `localhost:${server.port}`
      url.searchParams.set("sslmode", "verify-full")
      url.searchParams.set("sslrootcert", file("authority.crt"))
      url.searchParams.set("sslcert", file("client.crt"))
      url.searchParams.set("sslkey", file("client.key"))
      assert.strictEqual(yield* outcome({ url: Redacted.make(url.href) }), "encrypted")
    }))

  it.effect("a file that is not there and half a client certificate are named", () =>
    Effect.gen(function*() {
      assert.include(yield* outcome({ tls: "verify-ca", tlsCa: "/nowhere.crt" }), "STRATA_DATABASE_TLS_CA")
      assert.include(yield* outcome({ tls: "require", tlsCert: "/nowhere.crt" }), "needs both")
    }))

  it.effect("an encrypted connection into a black hole is cut as well", () =>
    Effect.gen(function*() {
      const { server } = yield* TlsServer
      const proxy = yield* TcpProxy.make({ host: "127.0.0.1", port: server.port })
      const { sql } = yield* connect({
        url: proxy.through(server.url),
        tls: "require",
        statementTimeout: "200 millis",
        socketTimeout: "500 millis"
      })
      yield* sql`select 1`
      yield* proxy.blackhole
      const [took] = yield* Effect.timed(Effect.flip(sql`select 1`))
      assert.isBelow(Duration.toMillis(took), 3_000)
    }))

  it.effect("wake-ups and cancellations work on encrypted connections", () =>
    Effect.gen(function*() {
      const { server } = yield* TlsServer
      const { sql, wake, wakeups } = yield* connect({ url: server.url, tls: "require", maxConnections: 1 })
      const woken = yield* Queue.unbounded<void>()
      yield* Effect.forkScoped(Stream.runForEach(wakeups("encrypted"), () => Queue.offer(woken, undefined)))
      yield* Queue.take(woken)
      yield* wake("encrypted")
      yield* Queue.take(woken)
      const [took] = yield* Effect.timed(Effect.timeoutOption(sql`select pg_sleep(30)`, "100 millis"))
      assert.isBelow(Duration.toMillis(took), 3_000)
      yield* sql`select 1`
    }))

  it.effect("nothing but the pool stays open, and nothing at all after the layer", () =>
    Effect.gen(function*() {
      const { server } = yield* TlsServer
      const proxy = yield* TcpProxy.make({ host: "127.0.0.1", port: server.port })
      const open = (count: number) =>
        Effect.repeat(proxy.connections, {
          until: (open) => open === count,
          schedule: Schedule.spaced("10 millis"),
          times: 300
        })
      for (const tls of ["disable", "prefer", "require"] as const) {
        yield* Effect.scoped(Effect.gen(function*() {
          const { sql } = yield* connect({ url: proxy.through(server.url), tls })
          yield* sql`select 1`
          assert.strictEqual(yield* open(1), 1, tls)
        }))
        assert.strictEqual(yield* open(0), 0, tls)
      }
    }))

  it.effect("without TLS on the server, prefer falls back and require fails", () =>
    Effect.gen(function*() {
      const { server } = yield* TlsServer
      yield* server.stop
      yield* server.start({ ssl: "off" })
      assert.strictEqual(yield* outcome({}), "plaintext")
      assert.include(yield* outcome({ tls: "require" }), "does not support TLS")
    }))
})
