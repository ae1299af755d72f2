# The base brings a C compiler too, which aws-lc, the cryptography under TLS, is built with.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
# What was downloaded and compiled stays in the builder's cache, so that a changed source compiles no dependency again.
# The crate itself is always compiled: by its files' times alone, an older checkout would pass for what is in the cache.
# Linked statically, the binary needs nothing beside it; the target is named so that only what runs in the image is. The linker
# warns of getaddrinfo: names are resolved from /etc/hosts and by DNS, and by no other module.
# The line tables that backtraces are made from are most of the binary. Compressed, they still resolve: by zlib, which is what
# Rust's runtime reads.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    touch src/lib.rs src/main.rs \
    && target=$(rustc --print host-tuple) \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target" \
    && install -d /out \
    && objcopy --compress-debug-sections=zlib "target/$target/release/cxgate" /out/cxgate

FROM scratch
LABEL org.opencontainers.image.title="cxgate" \
      org.opencontainers.image.description="A reverse proxy that keeps every client of NICE CXone inside its limits" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/cxgate /usr/bin/cxgate
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# The probe asks the admin listener, wherever CXGATE__ADMIN__ADDRESS puts it.
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=3 CMD ["/usr/bin/cxgate", "healthcheck"]
ENTRYPOINT ["/usr/bin/cxgate"]
