# fasternet-mm with the versions that are tested together. It was written where no Docker daemon runs: it has not been
# built yet.
#
#   docker build -t fasternet-mm .
#   docker build -t fasternet-mm --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/work" fasternet-mm train shapes/mask_rcnn_fasternet_t0_shapes
#
# The first is for CPUs, the second for NVIDIA GPUs. PyTorch's wheels bring the CUDA libraries, so both have the same
# base; a GPU needs NVIDIA's driver and container toolkit on the host.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# requirements-onedl.txt takes OneDL's fork in place of OpenMMLab's own releases.
ARG REQUIREMENTS=requirements.txt

# OpenCV loads these two.
RUN apt-get update && \
    apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 && \
    rm -rf /var/lib/apt/lists/*

# Requirements come before sources, so that a change of code does not install PyTorch again.
WORKDIR /source
COPY requirements*.txt ./
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint requirements.txt \
    torch torchvision -r "$REQUIREMENTS"
COPY . .
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint requirements.txt .

RUN useradd --create-home --uid 1000 fasternet && mkdir /work && chown fasternet /work
USER fasternet
WORKDIR /work
ENTRYPOINT ["fasternet-mm"]
CMD ["--help"]
