"""Triton's side of a text model: BYTES in, probabilities out; `scoring.py` beside it does the work.

Needs numpy and what `scoring.py` imports, nothing of the project that trained it.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import triton_python_backend_utils as pb_utils
from scoring import Scorer


class TritonPythonModel:
    """One instance of the model, called by Triton with a list of requests at a time."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights; a mismatch with the config's sha-256 raises and Triton refuses the model."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        parameters["instance_kind"] = args["model_instance_kind"]
        self.scorer = Scorer(Path(__file__).resolve().parent, parameters["weights_sha256"], parameters)

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
