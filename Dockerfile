# clipdrift on a machine with NVIDIA GPUs:
#     docker build --tag clipdrift .
#     docker run --gpus all --volume "$PWD:/work" clipdrift run study.yaml --out results/
# torch comes with CUDA from the Python package index; the driver is the host's.
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 clipdrift

WORKDIR /opt/clipdrift
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt '.[trackers,heif]'

USER clipdrift
ENV CLIPDRIFT_CACHE=/home/clipdrift/cache
WORKDIR /work
ENTRYPOINT ["clipdrift"]
CMD ["--help"]
