"""Run our own ONNX graph in ONNX Runtime with one thread and one prompt at a time. It serves on every processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.encoders.onnx_graph import FEATURES, IDS, bert_graph
from probes.encoders.spec import FloatArray
from probes.encoders.weights import EncoderWeights
from probes.errors import DataError, EncoderError


class OnnxRuntime:
    """Runs the graph of `onnx_graph` in ONNX Runtime, as a thread-safe function from token ids to features.

    Args:
        weights: of the encoder. The graph is written here, so that none that somebody else wrote is ever run.
        parts: (kind, half layers) of the pooling.

    Raises EncoderError without onnx or onnxruntime, or if it refuses the model.
    """

    name = "onnxruntime"

    def __init__(self, weights: EncoderWeights, parts: Sequence[tuple[str, int]]) -> None:
        self._vocabulary, self._longest = weights.vocabulary, weights.positions
        self._session = _session(bert_graph(weights, parts))

    def __call__(self, ids: Sequence[int]) -> FloatArray:
        """Return the features (d,) of one prompt's token ids. Raises DataError for ids outside the vocabulary."""
        if not 0 < len(ids) <= self._longest or min(ids) < 0 or max(ids) >= self._vocabulary:
            raise DataError(
                f"token ids must be 1 to {self._longest} of 0 to {self._vocabulary - 1}, got {len(ids)}; the "
                f"tokenizer is not this encoder's."
            )
        features: FloatArray = self._session.run([FEATURES], {IDS: np.array([ids], dtype=np.int64)})[0][0]
        return features


def _session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise EncoderError(
            "encoding needs onnxruntime, which is not installed; install it with `pip install 'elle-router[serve]'`."
        ) from error
    options = onnxruntime.SessionOptions()
    # More than one intra-op thread collapses when neighbours use the cores; parallelism is across prompts.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # The graph is fused already, and the optimiser would fuse additions into a normalisation that is slower.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Every prompt has another length: patterns of allocation do not repeat.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime's own exceptions have no common base.
        raise EncoderError(f"onnxruntime {onnxruntime.__version__} cannot load the encoder: {error}") from error
