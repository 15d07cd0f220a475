# syntax=docker/dockerfile:1
# Vedette on a CPU. Build: docker build -t vedette .
# Run:  docker run -v ./vedette.yaml:/etc/vedette/vedette.yaml:ro -v vedette:/var/lib/vedette -p 5556-5557:5556-5557 \
#           -p 8642:8642 --read-only --cap-drop ALL --security-opt no-new-privileges vedette
# The configuration must publish beyond the container's own loopback: alerts.publish tcp://0.0.0.0:5556, alerts.replay
# tcp://0.0.0.0:5557 (both with alerts.curve), http.listen 0.0.0.0:8642 (which needs http.tokens): SECURITY.md. Frame rings
# live in /dev/shm: about 2 MB a camera, more --shm-size for more than 30 of them. `docker stop` waits 10 s, the daemon needs
# at most 8.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY streamer streamer
COPY engines engines
COPY kernels kernels
RUN python -m venv /opt/vedette \
    && /opt/vedette/bin/pip install --no-cache-dir ".[mqtt]" \
    && find /opt/vedette -name "tests" -type d -path "*/site-packages/*" -prune -exec rm -rf {} + \
    && /opt/vedette/bin/pip uninstall --yes --quiet setuptools pip

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10642 --home-dir /var/lib/vedette --create-home --shell /usr/sbin/nologin vedette
COPY --from=build /opt/vedette /opt/vedette
COPY configs/vedette.yaml /usr/share/vedette/vedette.yaml
ENV PATH=/opt/vedette/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1
USER vedette
VOLUME /var/lib/vedette
EXPOSE 5556 5557 8642
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8642/healthz', timeout=3)"]
ENTRYPOINT ["vedette"]
CMD ["run", "/etc/vedette/vedette.yaml"]
