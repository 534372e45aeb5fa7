/**
 * All projections of conversations.
 *
 * **Example** (Running them)
 *
 * ```ts
 * import { ConversationProjections } from "@strata/conversations/read/ConversationProjections"
 * import * as Projections from "@strata/projections/Projections"
 *
 * const ProjectionsLayer = Projections.layer(ConversationProjections)
 * ```
 *
 * @since 0.1.0
 */
import type { Projection } from "@strata/projections/Projection"
import { MessageAnalytics } from "../analytics/MessageAnalytics.ts"
import { ResponseTimes } from "../analytics/ResponseTimes.ts"
import { ConversationList } from "./ConversationList.ts"
import { Messages } from "./Messages.ts"
import { UnreadCounts } from "./UnreadCounts.ts"

/**
 * What `ConversationQueries` and `Analytics` read is filled by these.
 *
 * @category projections
 * @since 0.1.0
 */
export const ConversationProjections: ReadonlyArray<Projection> = [
  ConversationList,
  Messages,
  UnreadCounts,
  ResponseTimes,
  MessageAnalytics
]
