/** Settings of servers that do little: most of the time that one takes to start goes into making its memory and its processes. */
export const smallServer = { shared_buffers: "16MB", io_method: "sync" }
