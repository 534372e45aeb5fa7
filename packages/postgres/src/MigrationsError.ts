/**
 * Why migrations were refused or failed.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The failure of a run. The message names package and file and says what to do.
 *
 * **Details**
 *
 * With the reasons up to `OutOfOrder` nothing was changed.
 *
 * - `DirectoryUnreadable`: the directory or a file of it cannot be read
 * - `InvalidFile`: a name that is not `NNNN_name.sql`, two files with one id, text that ends inside a quote, or a file
 *   that controls its transaction
 * - `Changed`: a file is not what it was when it was applied
 * - `Missing`: an applied file is not there
 * - `OutOfOrder`: a new file has a lower id than an applied one
 * - `StatementFailed`: PostgreSQL refused a statement
 * - `DatabaseFailed`: the database could not be reached, or refused the ledger
 *
 * @category errors
 * @since 0.1.0
 */
export class MigrationError extends Schema.TaggedError<MigrationError>("@strata/postgres/MigrationError")(
  "MigrationError",
  {
    reason: Schema.Literals([
      "DirectoryUnreadable",
      "InvalidFile",
      "Changed",
      "Missing",
      "OutOfOrder",
      "StatementFailed",
      "DatabaseFailed"
    ]),
    package: Schema.optionalKey(Schema.String),
    file: Schema.optionalKey(Schema.String),
    message: Schema.String,
    cause: Schema.optionalKey(Schema.Defect())
  }
) {}
