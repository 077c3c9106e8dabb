# docker build -t candor:0.1.0 .
# docker run -p 127.0.0.1:8000:8000 -e CANDOR_ALLOW_ANONYMOUS=true candor:0.1.0
#   or, where others reach the port, -e CANDOR_TOKEN=... (or CANDOR_TOKEN_FILE): without either it says so and ends,
#   since in a container it listens on all addresses and cannot see which of them are published.
# Tighter: --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges
# podman and buildah drop the HEALTHCHECK unless they build with --format docker.
#
# With CUDA: docker build -t candor:0.1.0-cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#   The base stays the same: PyTorch brings CUDA's libraries along as wheels, and nothing is compiled, then or later.
#   What runs it needs NVIDIA's driver for CUDA 13 (580 or newer) and its container toolkit: docker run --gpus all ...
#   CANDOR_DEVICE=auto takes the GPU where there is one, and the processor where there is none; cuda insists.
ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG PIP_OPTIONS=""
RUN python3 -m venv /opt/candor
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY service ./service
# Nothing is installed into what serves: pip stays behind.
RUN /opt/candor/bin/pip install --no-cache-dir --constraint constraints.txt \
    --extra-index-url "${TORCH_INDEX}" ${PIP_OPTIONS} ".[postgresql]" \
    && /opt/candor/bin/pip uninstall --yes pip

FROM ${BASE}
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin candor \
    && install --directory --owner candor --group candor /var/lib/candor
COPY --from=build /opt/candor /opt/candor
COPY models /models
ENV PATH=/opt/candor/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CANDOR_HOST=0.0.0.0 \
    CANDOR_PORT=8000 \
    CANDOR_MODELS=/models \
    CANDOR_DATABASE_URL=sqlite:////var/lib/candor/samples.sqlite
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python3", "-c", "import os, ssl, urllib.request as u; tls = os.environ.get('CANDOR_TLS_CERTIFICATE'); u.urlopen(('https' if tls else 'http') + '://127.0.0.1:' + os.environ['CANDOR_PORT'] + '/readyz', timeout=2, context=ssl._create_unverified_context() if tls else None)"]
STOPSIGNAL SIGTERM
CMD ["candor", "serve"]
