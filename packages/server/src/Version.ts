/**
 * The server's version.
 *
 * @since 0.1.0
 */
import manifest from "@strata/server/package.json" with { type: "json" }

/**
 * As `package.json` has it.
 *
 * @category constants
 * @since 0.1.0
 */
export const version: string = manifest.version
