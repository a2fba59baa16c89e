# The toolkit for machines without a GPU: Debian 12, Caffe for the CPU, the tools, JupyterLab.
#
#   docker build -t tiny-imagenet -f docker/cpu.Dockerfile .
#   docker run --rm -it --user "$(id -u):$(id -g)" -v "$PWD/data:/data" -v "$PWD/runs:/runs" \
#     tiny-imagenet prototxt/model8/train.sh --data /data --run /runs/model8
#
# Below the line, both Dockerfiles are the same. docker/README.md has more examples.

ARG BUILD_IMAGE=debian:bookworm-20260824-slim
ARG RUN_IMAGE=debian:bookworm-20260824-slim
# The packages, without headers, of the libraries that Caffe is linked with
ARG RUN_LIBRARIES="libboost-filesystem1.74.0 libboost-thread1.74.0 libgflags2.2 libgomp1 libgoogle-glog0v6 \
    libhdf5-103-1 libhdf5-hl-100 libhwy1 liblmdb0 libopenblas0-openmp libopencv-core406 libopencv-imgcodecs406 \
    libopencv-imgproc406 libprotobuf32"
ARG CMAKE_OPTIONS="-DCPU_ONLY=ON"

# --------------------------------------------------------------------------------------------------------------------
# Compilers, headers, Python
FROM ${BUILD_IMAGE} AS tools
RUN apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential ca-certificates cmake git libboost-filesystem-dev libboost-thread-dev libgflags-dev \
        libgoogle-glog-dev libhdf5-dev libhwy-dev liblmdb-dev libopenblas-openmp-dev libopencv-core-dev \
        libopencv-imgcodecs-dev libopencv-imgproc-dev libprotobuf-dev librandom123-dev ninja-build protobuf-compiler \
        python3 python3-dev python3-venv && \
    rm -rf /var/lib/apt/lists/*

# Caffe's source
FROM tools AS source
COPY tools/fetch_caffe.sh /
RUN apt-get update && /fetch_caffe.sh /caffe

# The Python packages, and Caffe
FROM tools AS build
COPY tools/requirements.txt docker/jupyter.txt /
RUN python3 -m venv /opt/venv && \
    /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -r /requirements.txt -r /jupyter.txt
WORKDIR /opt/tiny-imagenet
COPY --from=source /caffe build/caffe-source
COPY CMakeLists.txt ./
COPY caffe_layers caffe_layers
ARG CMAKE_OPTIONS
# Number of compilers (default: one per core); each takes up to 1.5 GB of memory
ARG JOBS
RUN cmake -B build -G Ninja -DBUILD_TESTING=OFF -DPython_EXECUTABLE=/opt/venv/bin/python ${CMAKE_OPTIONS} && \
    cmake --build build -j "${JOBS:-$(nproc)}" && \
    packages=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
    cmake --install build --component python --prefix "$packages" && \
    echo /opt/tiny-imagenet/python >"$packages/tiny_imagenet.pth"
# Dask and MPI: --build-arg CLUSTER=1
ARG CLUSTER
COPY tools/requirements-cluster.txt /
RUN [ -z "${CLUSTER}" ] || \
    /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -r /requirements-cluster.txt

# The image: libraries, packages, and last the checkout, which changes most often
FROM ${RUN_IMAGE}
ARG RUN_LIBRARIES
ARG CLUSTER
RUN apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates graphviz python3 tini ${CLUSTER:+openmpi-bin} ${RUN_LIBRARIES} && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /opt/tiny-imagenet
# Any user may run it (--user), so these folders are writable for all.
ENV HOME=/home/user LANG=C.UTF-8 PATH=/opt/venv/bin:$PATH TINY_IMAGENET_IMAGE=1
# Docker does not allow ranks to read each other's memory.
ENV OMPI_MCA_btl_vader_single_copy_mechanism=none
RUN mkdir -m 1777 /home/user /data /runs && ln -s /opt/venv .venv
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/tiny-imagenet/build/caffe /opt/tiny-imagenet/build/libcaffe.so build/
RUN python -c 'import caffe'
COPY . .
RUN chmod -R a+rwX .
# The commit that runs record: --build-arg COMMIT="$(git describe --always --dirty --abbrev=40)"
ARG COMMIT
ENV TINY_IMAGENET_COMMIT=$COMMIT
USER 1000:1000
# tini forwards SIGTERM, so that docker stop ends a training with a checkpoint
ENTRYPOINT ["tini", "--"]
CMD ["bash"]
