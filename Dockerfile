# Vinograph's HTTP server: docs/docker.md says how to run it.
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m venv /opt/vinograph
RUN /opt/vinograph/bin/python -m pip install --no-cache-dir ".[serve]"

FROM python:3.11-slim
COPY --from=build /opt/vinograph /opt/vinograph
# Models come with a volume, and what is compiled from them stays in another. The rest is only read.
RUN mkdir -p /models /cache && chown 10001:10001 /models /cache
ENV PATH=/opt/vinograph/bin:/usr/local/bin:/usr/bin:/bin
ENV HOME=/cache
ENV VINOGRAPH_MODELS=/models
ENV VINOGRAPH_CACHE=/cache
ENV VINOGRAPH_HOST=0.0.0.0
ENV VINOGRAPH_PORT=8080
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME ["/models", "/cache"]
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
# It ends after the drawing under way: give `docker stop` as long as --grace, with --stop-timeout.
STOPSIGNAL SIGTERM
ENTRYPOINT ["vinograph", "serve"]
