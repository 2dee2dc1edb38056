# Two stages: one that builds, one that runs. The image holds one program and what HTTPS needs.
#
#   docker build -t waystation .
#   docker run --rm --network host -v ./routes.toml:/etc/waystation/routes.toml:ro waystation
#
# Without an identity configured the gateway listens on loopback addresses only, so it needs the
# host's network, or a proxy beside it in the same one.
#
# Child-process backends run inside the container: add what they need (node, python, uv) in an
# image of your own that begins FROM this one.
FROM rust:1.95-bookworm AS build
WORKDIR /source
# aws-lc and SQLite are built from C.
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
COPY Cargo.toml Cargo.lock routes.toml ./
COPY benches benches
COPY docs docs
COPY src src
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --home-dir /var/lib/waystation waystation
COPY --from=build /source/target/release/waystation /usr/local/bin/waystation
COPY routes.toml /etc/waystation/routes.toml
USER waystation
WORKDIR /var/lib/waystation
ENV WAYSTATION_STORE__PATH=/var/lib/waystation/waystation.db
HEALTHCHECK CMD ["waystation", "status", "--config", "/etc/waystation/routes.toml"]
# With SIGTERM the gateway answers what is under way, stops its children and leaves.
ENTRYPOINT ["waystation"]
CMD ["serve", "--config", "/etc/waystation/routes.toml"]
