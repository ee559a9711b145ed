# The image of driftguard: the program and what it links, no shell, no package manager.
#
#     docker build -t registry.example.com/driftguard:0.1.0 .
#
# The compiler of rust-toolchain.toml; a test holds the two together.
FROM docker.io/library/rust:1.95.0-bookworm AS build
# The toolchain that the image has: the file asks for formatter and linter as well.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /source
COPY . .
RUN cargo build --locked --release --bin driftguard

# The C library that the program was linked against is Debian 12's in both.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /source/target/release/driftguard /driftguard
# By number: kubelet cannot tell of a name that it is not root (runAsNonRoot).
USER 65532:65532
ENTRYPOINT ["/driftguard"]
