# Astrea on the processor:  docker build -t astrea . && docker run --rm astrea ask example "what colour is the cat?"
# A server, with EXTRAS="[serve]" below:  docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/key":/key:ro astrea serve
#   --host 0.0.0.0 --api-key-file /key      (docs/serving.md)
# Work with files of yours:  docker run --rm -v "$PWD":/data astrea train tiny --out /data/runs/mine
FROM python:3.11-slim

COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY src /src/src
# torch's own index has builds for processors, without gigabytes of GPU libraries; PyTorch's installation page names its
# address ("CPU"), for --build-arg PIP_EXTRA_INDEX_URL=ADDRESS, which pip reads. From there comes 2.13.0+cpu, which counts as newer than 2.13.0.
ARG PIP_EXTRA_INDEX_URL=""
# Extras are chosen with --build-arg EXTRAS="[data,index]".
ARG EXTRAS=""
RUN pip install --no-cache-dir -c /src/constraints.txt torch==2.13.0 \
    && pip install --no-cache-dir -c /src/constraints.txt "/src${EXTRAS}"

RUN useradd --create-home astrea && install -d -o astrea /data
USER astrea
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["astrea"]
CMD ["--help"]
