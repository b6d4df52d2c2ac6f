# naflow-fx on the CPU or on CUDA:
#
#   docker build -t naflow-fx .
#   docker run --rm -v "$PWD:/work" naflow-fx explain cat.jpg
#   docker run --rm --gpus all -v "$PWD:/work" naflow-fx explain cat.jpg --device cuda
#
# PyPI's torch for Linux brings CUDA along.  A much smaller image, for the CPU alone:
#
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu -t naflow-fx .
FROM python:3.12-slim
ARG TORCH_INDEX=https://pypi.org/simple
ARG EXTRAS=onnx,hub,batch,viz
RUN apt-get update \
  && apt-get install -y --no-install-recommends graphviz \
  && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple \
  torch torchvision
COPY . /src
RUN pip install --no-cache-dir "/src[$EXTRAS]" && rm -rf /src
RUN useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["naflow-fx"]
