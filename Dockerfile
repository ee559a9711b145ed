# The image of driftguard: the program, the ssh client that it fetches from git with, and what they link; no shell,
# no package manager.
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

# The ssh client of the same Debian. Of its libraries the C library is in the image already; the others go where the
# loader looks whatever the architecture.
RUN apt-get update && apt-get install --yes --no-install-recommends openssh-client && \
    libraries=/ssh/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH) && mkdir -p /ssh/usr/bin "$libraries" && \
    cp /usr/bin/ssh /ssh/usr/bin/ && \
    ldd /usr/bin/ssh | awk '$3 ~ /^\// && $1 !~ /^libc\.so/ { print $3 }' | xargs cp --dereference --target-directory="$libraries"

# The C library that the program was linked against is Debian 12's in both.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /ssh/ /
COPY --from=build /source/target/release/driftguard /driftguard
# By number: kubelet cannot tell of a name that it is not root (runAsNonRoot).
USER 65532:65532
ENTRYPOINT ["/driftguard"]
