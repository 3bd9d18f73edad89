# One image with one executable; what it does is its first argument: gateway, actors, migrate, store.
# PostgreSQL, NATS and the object store are services of their own (compose.yaml), so `up` is not for this image.

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --profile dist --locked --bin bowerbird && install -D target/dist/bowerbird /out/bowerbird

FROM debian:bookworm-slim
# Root certificates for the sources of downloads.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/bowerbird --create-home bowerbird
COPY --from=build /out/bowerbird /usr/local/bin/bowerbird
USER 10001:10001
WORKDIR /var/lib/bowerbird
EXPOSE 8080 9090
ENTRYPOINT ["bowerbird"]
CMD ["--help"]
