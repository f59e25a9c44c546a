"""Triton's side of a text model: BYTES in, probabilities out; `scoring.py` beside it does the work.

Needs numpy and what `scoring.py` imports, nothing of the project that trained it.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
if not any(os.access(place, os.W_OK) for place in (HERE, Path.home())):
    # numba keeps compiled code in one of the two and does not start without a place for it
    os.environ.setdefault("NUMBA_CACHE_DIR", tempfile.mkdtemp())

import numpy as np  # noqa: E402 - what stands above must come first
import triton_python_backend_utils as pb_utils  # noqa: E402
from scoring import Scorer  # noqa: E402


class TritonPythonModel:
    """One instance of the model, called by Triton with a list of requests at a time."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights; a mismatch with the config's sha-256 raises and Triton refuses the model."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        # Of a model with several versions each has a parameter of its own.
        own = parameters.get(f"weights_sha256_{args['model_version']}", parameters["weights_sha256"])
        self.scorer = Scorer(HERE, own, parameters)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the texts of all requests in one pass and hand each request its rows."""
        batches = [pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy() for request in requests]
        texts = [text for batch in batches for text in batch.ravel().tolist()]
        probabilities, known = self.scorer.answer(texts)
        responses, start = [], 0
        for batch in batches:
            stop = start + batch.size
            outputs = [
                pb_utils.Tensor("PROBABILITIES", probabilities[start:stop]),
                pb_utils.Tensor("KNOWN_SHARE", np.ascontiguousarray(known[start:stop, None])),
            ]
            responses.append(pb_utils.InferenceResponse(output_tensors=outputs))
            start = stop
        return responses
