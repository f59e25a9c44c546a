# Triton with what the models in triton_models/ need: they tokenise and run inside its Python backend.
#   docker build -f docker/triton.Dockerfile -t shunt-triton .
FROM nvcr.io/nvidia/tritonserver:25.06-py3
COPY constraints.txt /tmp/constraints.txt
# The image's own numpy stays: Triton's Python backend is built against it.
RUN grep -Ev '^numpy==' /tmp/constraints.txt > /tmp/pins.txt \
 && pip install --no-cache-dir --break-system-packages --constraint /tmp/pins.txt numba onnxruntime tokenizers \
 && rm /tmp/constraints.txt /tmp/pins.txt
