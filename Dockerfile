# postman as one static file in an empty image: nothing in it but the binary, the certificate authorities and a folder for the store.
# Time zones are in the binary.

FROM golang:1.26.8 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
# .git comes along: the version is read from it.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /image/usr/local/bin/postman ./cmd/postman
# The relay's TLS, and Sentry's, want the certificates.
RUN install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt && \
    install -d -m 750 /store

FROM scratch
COPY --from=build /image /
# Mount a named volume here: the store has to outlive the container. A new one is owned like this folder.
COPY --from=build --chown=65532:65532 /store /var/lib/postman
ENV STORE_URL=sqlite:/var/lib/postman/postman.db \
    POSTMAN_RULES=/etc/postman/rules.yaml \
    POSTMAN_TEMPLATES=/etc/postman/templates
WORKDIR /var/lib/postman
# A number, so that Kubernetes' runAsNonRoot can tell.
USER 65532:65532
# It asks the running daemon over its socket, and fails while changes are not taken in. A relay that is down is not a failure: nothing
# is lost meanwhile, and a restart would not bring it back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/local/bin/postman", "status"]
ENTRYPOINT ["/usr/local/bin/postman"]
CMD ["run"]
