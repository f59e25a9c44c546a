"""A Triton model that answers every text alike and never looks at it."""

import numpy as np
import triton_python_backend_utils as pb_utils

TEXTS_MAX = 4096  # config.pbtxt's max_batch_size
# Made once and sliced: what a call costs is Triton's own, not the model's.
PROBABILITIES = np.tile(np.array([0.005, 0.995], dtype=np.float32), (TEXTS_MAX, 1))
KNOWN_SHARE = np.ones((TEXTS_MAX, 1), dtype=np.float32)


def texts_in(request):
    """How many texts a request holds, read from the tensor's shape without unpacking a single string."""
    tensor = pb_utils.get_input_tensor_by_name(request, "TEXT")
    shape = getattr(tensor, "shape", None)
    return (shape() if callable(shape) else tensor.as_numpy().shape)[0]


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                output_tensors=[
                    pb_utils.Tensor("PROBABILITIES", PROBABILITIES[:n]),
                    pb_utils.Tensor("KNOWN_SHARE", KNOWN_SHARE[:n]),
                ]
            )
            for n in map(texts_in, requests)
        ]
