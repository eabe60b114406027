# SERtain in a container: docs/containers.md says how to build and run it.
#   docker build -t sertain:cpu --build-arg TORCH_INDEX=<index of torch's CPU builds, see docs/containers.md> .
#   docker build -t sertain:cuda --build-arg TORCH=cuda .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS dependencies
ARG TORCH=cpu
ARG TORCH_INDEX=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
SHELL ["/bin/sh", "-eu", "-c"]
WORKDIR /build
RUN python3 -m venv /opt/venv
COPY docker/requirements-cpu.lock docker/requirements-cuda.lock docker/install.sh docker/torch_of_lock.sh docker/
# The code comes later: as long as the locks stay, this layer does.
RUN --mount=type=cache,target=/root/.cache/pip sh docker/install.sh /opt/venv "${TORCH}" "${TORCH_INDEX}"
COPY docker/slim.sh docker/
RUN sh docker/slim.sh /opt/venv

FROM dependencies AS project
COPY . /workspace
WORKDIR /workspace
ARG COMMIT=""
# The files of `pip install -e` alone, to be laid over the environment: the layer with torch does not change with the code.
RUN /opt/venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --prefix /opt/project --editable . \
 && rm -rf ./*.egg-info build
ENV PYTHONPATH=/workspace:/workspace/eval:/workspace/analysis
# The built-in corpus is there, so that the quickstart needs nothing else.
RUN /opt/venv/bin/python -m ser_scripts.runs.source /opt/project/share/sertain.json "${COMMIT}" \
 && SER_CACHE=/tmp/cache /opt/project/bin/ser prepare toy

FROM ${BASE_IMAGE} AS final
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ffmpeg libsndfile1 tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=project /opt/project /opt/venv
COPY --from=project /workspace /workspace
COPY --chmod=755 docker/entrypoint.sh /usr/local/bin/sertain
# Anybody may write here (`docker run --user`), as in /tmp; a folder mounted over it has its own owner and rights.
RUN mkdir -p /cache /workspace/runs && chmod 1777 /cache /workspace/runs /workspace/data/raw
ARG TORCH=cpu
ARG COMMIT=""
ARG VERSION=""
LABEL org.opencontainers.image.title="SERtain" \
      org.opencontainers.image.description="Reproducible speech emotion recognition" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      sertain.torch="${TORCH}"
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=sertain \
    SER_CACHE=/cache/sertain \
    HF_HOME=/cache/huggingface \
    SER_IMAGE_TORCH=${TORCH}
WORKDIR /workspace
USER 1000:1000
ENTRYPOINT ["tini", "-s", "-g", "--", "sertain"]
CMD ["--help"]
