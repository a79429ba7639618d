"""The reference runtime: transformers' model in float32, one prompt per forward pass."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probes.encoder import EncoderSpec, FloatArray
from probes.encoder_files import TOKENIZER_FILE, check_files, find_encoder
from probes.errors import EncoderError
from probes.prompt_tokens import PromptTokenizer

_POOL: Mapping[str, Callable[[Any], Any]] = {
    "mean": lambda state: state.mean(dim=0),
    "max": lambda state: state.amax(dim=0),
    "cls": lambda state: state[0],
}

# Architectures whose last hidden state is the last layer's output as it stands: there, leaving out the layers above
# the highest one read changes nothing but the time. Others normalise the last state once more.
_NO_FINAL_NORM = frozenset({"bert", "roberta", "xlm-roberta"})


class TorchEncoder:
    """The reference runtime: transformers' model in float32 on the CPU, one prompt per forward pass."""

    def __init__(self, spec: EncoderSpec, directory: Path) -> None:
        import torch
        from transformers import AutoConfig, AutoModel

        check_files(spec, directory)
        # More than one intra-op thread collapses when neighbours use the cores; parallelism is across prompts.
        torch.set_num_threads(1)
        self._torch = torch
        self._spec = spec
        self._tokenizer = PromptTokenizer(directory / TOKENIZER_FILE, spec.max_tokens, spec.truncation)
        self._parts = spec.parts
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        highest = max(layer for _, layer in spec.parts)
        if highest > config.num_hidden_layers:
            raise EncoderError(
                f"pooling must name layers up to {config.num_hidden_layers}, the last of {spec.model_id}, got "
                f"{list(spec.pooling)}."
            )
        if config.model_type in _NO_FINAL_NORM:
            config.num_hidden_layers = highest
        self._model = _quietly(
            lambda: AutoModel.from_pretrained(
                directory, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        ).eval()
        self._n_features = len(spec.parts) * int(config.hidden_size)

    @property
    def spec(self) -> EncoderSpec:
        """Which encoder this is."""
        return self._spec

    @property
    def n_features(self) -> int:
        """Width d of the features: parts of the pooling times hidden size."""
        return self._n_features

    def encode(self, text: str) -> FloatArray:
        """Features of one text, shape (d,), float32.

        Raises DataError for text that is not valid Unicode, EncoderError if the features are not finite.
        """
        torch = self._torch
        with torch.inference_mode():
            ids = torch.tensor([self._tokenizer(text)])
            states = self._model(
                input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
            ).hidden_states
            pooled = torch.cat([_POOL[kind](states[layer][0]) for kind, layer in self._parts])
        features: FloatArray = pooled.numpy()
        if not np.isfinite(features).all():
            raise EncoderError(f"features must be finite, {self._spec.model_id} gave NaN or infinity.")
        return features


def load_torch_encoder(spec: EncoderSpec, directory: Path | None = None) -> TorchEncoder:
    """The encoder in torch; arguments and errors as `probes.encoder.load_encoder`."""
    found = find_encoder(spec, directory)
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise EncoderError(
            f"encoding in float32 needs {' and '.join(missing)}, not installed; install them with "
            f"`pip install 'elle-router[torch]'`."
        )
    return TorchEncoder(spec, found)


def _quietly(load: Callable[[], Any]) -> Any:
    # transformers draws a progress bar for 100 tensors and logs unused heads on stderr: noise in a server's log.
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return load()
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
