# The server, run from its sources: Node strips the types, so there is nothing to build.
FROM node:24.21.0-bookworm-slim

WORKDIR /app

# Without what only development needs, and without the embedded PostgreSQL: DATABASE_URL names the server's database.
COPY package.json package-lock.json .npmrc ./
COPY packages ./packages
RUN --mount=type=cache,target=/root/.npm \
  npm ci --workspace=@strata/server --omit=dev --omit=optional --ignore-scripts

# Where the server keeps what is not in the database. A volume takes its owner from the folder, so that comes first.
RUN install --directory --owner=node --group=node /var/lib/strata
VOLUME /var/lib/strata

ENV NODE_ENV=production \
  HOST=0.0.0.0 \
  PORT=8080 \
  STRATA_DATA_DIR=/var/lib/strata

USER node
EXPOSE 8080

# Ready includes the database and the migrations; the first start may take a moment longer.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/health/ready`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]

CMD ["node", "--min-semi-space-size=64", "--max-semi-space-size=128", "--conditions=strata:source", "packages/server/src/main.ts"]
