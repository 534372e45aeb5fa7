/**
 * Why an embedded server cannot be had.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The failure of starting or joining an embedded server. The message names the directory and says what to do.
 *
 * **Details**
 *
 * - `BinariesMissing`: the package that holds PostgreSQL for this platform is not installed, or not whole
 * - `DirectoryUnusable`: the data directory cannot be created, read or written by the user that must own it
 * - `VersionMismatch`: the data directory belongs to another major version of PostgreSQL
 * - `InitializationFailed`: `initdb` failed
 * - `StartFailed`: the server stopped before it was ready; the message ends with the last lines of its log
 * - `NotReady`: the server did not become ready, or did not stop, in the time given
 *
 * @category errors
 * @since 0.1.0
 */
export class EmbeddedPostgresError
  extends Schema.TaggedError<EmbeddedPostgresError>("@strata/postgres/EmbeddedPostgresError")(
    "EmbeddedPostgresError",
    {
      reason: Schema.Literals([
        "BinariesMissing",
        "DirectoryUnusable",
        "VersionMismatch",
        "InitializationFailed",
        "StartFailed",
        "NotReady"
      ]),
      message: Schema.String,
      cause: Schema.optionalKey(Schema.Defect())
    }
  )
{}
