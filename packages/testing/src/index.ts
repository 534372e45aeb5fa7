export * as ChildProgram from "./ChildProgram.ts"
export * as PostgresTest from "./PostgresTest.ts"
export * as PrivatePostgres from "./PrivatePostgres.ts"
export * as TcpProxy from "./TcpProxy.ts"
