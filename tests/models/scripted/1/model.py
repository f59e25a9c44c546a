"""A Triton model whose answer stands in the text: `good`, `bad`, `unsure`, or `p=0.73` (positive at 0.73).

A text with `poison` fails every batch it is in, one with `stumble` the first.
"""

import numpy as np
import triton_python_backend_utils as pb_utils

ANSWERS = {b"good": (0.02, 0.98), b"bad": (0.98, 0.02), b"unsure": (0.45, 0.55)}


def answer_in(word):
    """The probabilities that a word stands for, if it does."""
    if word.startswith(b"p="):
        positive = float(word[2:])
        return (1 - positive, positive)
    return ANSWERS.get(word)


class TritonPythonModel:
    def initialize(self, args):
        self.stumbled = set()

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().reshape(-1)
        if any(b"poison" in text for text in texts):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("a poisonous text"))
        stumbling = {text for text in texts if b"stumble" in text} - self.stumbled
        if stumbling:
            self.stumbled |= stumbling
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("stumbled over a text"))
        rows = [next(filter(None, map(answer_in, text.split())), (0.5, 0.5)) for text in texts]
        probabilities = np.array(rows, dtype=np.float32).reshape(-1, 2)
        return pb_utils.InferenceResponse(
            output_tensors=[
                pb_utils.Tensor("PROBABILITIES", probabilities),
                pb_utils.Tensor("KNOWN_SHARE", np.ones((len(texts), 1), dtype=np.float32)),
            ]
        )
