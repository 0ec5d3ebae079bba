# Gemma Fine-Tuner: one CUDA base, two images.
#   docker build --target runner -t gemma-finetuner-runner .
#   docker build --target web    -t gemma-finetuner-web .
# deploy/compose.yaml starts both over one volume.

FROM nvidia/cuda:13.0.2-base-ubuntu24.04 AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# gcc and the Python headers: Triton compiles its launchers when a job first runs.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin finetuner \
    && install -d -o finetuner -g finetuner /app /var/lib/finetuner
WORKDIR /app
USER 10001
# The packages change seldom, the code often: so they are installed first, from the lock files alone.
COPY --chown=finetuner pyproject.toml README.md LICENSE NOTICE requirements-*.lock ./
COPY --chown=finetuner deploy/setup.sh deploy/setup.sh
COPY --chown=finetuner spool/__init__.py spool/__init__.py
COPY --chown=finetuner runner/__init__.py runner/__init__.py
COPY --chown=finetuner pages/__init__.py pages/__init__.py
# What some exports need beside that: --build-arg EXTRAS='onnx gptq'
ARG EXTRAS=
# hadolint ignore=SC2086
RUN deploy/setup.sh $EXTRAS
COPY --chown=finetuner . .
# The root is read-only in deploy/compose.yaml: what libraries keep for themselves goes to the volume or to /tmp.
ENV FINETUNER_HOME=/var/lib/finetuner \
    XDG_CACHE_HOME=/var/lib/finetuner/cache/xdg \
    CUDA_CACHE_PATH=/var/lib/finetuner/cache/cuda \
    PYTHONDONTWRITEBYTECODE=1 \
    PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1
VOLUME /var/lib/finetuner
ENTRYPOINT ["tini", "--"]

FROM base AS runner
# The embedded model is converted into the volume at the first start; later starts skip it in milliseconds.
CMD ["bash", "-c", "python -m runner.embed --home \"$FINETUNER_HOME\" && exec finetuner-runner"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s \
    CMD ["python", "-c", "import sys; from spool.health import heartbeat as h; from spool.protocol.home import Home; sys.exit(not h.read(Home.at()).alive)"]

FROM base AS web
EXPOSE 8501
# Inside a container the port is published by whoever runs it, by default to 127.0.0.1 (deploy/compose.yaml).
CMD ["streamlit", "run", "deploy/serve.py", "--server.address", "0.0.0.0", "--server.headless", "true"]
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/_stcore/script-health-check', timeout=4)"]
