"""Run the reference, which is transformers' model in float32: one prompt at a time on a CPU, many on a GPU."""

from __future__ import annotations

import importlib.util
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from probes.encoders.files import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    check_files,
    find_encoder,
    require_config_digest,
)
from probes.encoders.spec import EncoderSpec, FloatArray
from probes.encoders.tokens import PromptTokenizer
from probes.errors import EncoderError

#: Where torch runs: `cpu`, `cuda` or `cuda:1`; unset takes a GPU if torch sees one.
DEVICE_VARIABLE = "ELLE_TORCH_DEVICE"

#: Tokens of one forward pass on a GPU, padding included: 64 prompts of 256. A guess at what keeps one busy within a few
#: hundred megabytes of its memory; nobody has measured it.
BATCH_TOKENS = 16_384

# A hidden state (n, t, h) and which of its tokens are no padding (n, t, 1) -> (n, h).
_POOL: Mapping[str, Callable[[Any, Any], Any]] = {
    "mean": lambda state, real: state.masked_fill(~real, 0.0).sum(dim=1) / real.sum(dim=1),
    "max": lambda state, real: state.masked_fill(~real, -float("inf")).amax(dim=1),
    "cls": lambda state, real: state[:, 0],
}

# Architectures whose last hidden state is the last layer's output as it stands: there, leaving out the layers above
# the highest one read changes nothing but the time. Others normalise the last state once more. These are also those
# whose layers are known to have two halves, each with a normalised state at its end.
_BERTS = frozenset({"bert", "roberta", "xlm-roberta"})


class TorchEncoder:
    """Encodes text with the reference, which is transformers' model in float32, one prompt per forward pass.

    Args:
        spec: which encoder.
        directory: its original files.
        device: where torch runs it, as torch names it.
    """

    def __init__(self, spec: EncoderSpec, directory: Path, device: str = "cpu") -> None:
        import torch

        check_files(spec, directory)
        # More than one intra-op thread collapses when neighbours use the cores; parallelism is across prompts.
        torch.set_num_threads(1)
        # Float32 is part of the spec: no TF32 on a GPU, no bfloat16 on a CPU, whatever else runs in this process.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        self._torch = torch
        self._device = device
        self._spec = spec
        contents = (directory / TOKENIZER_FILE).read_bytes()
        self._tokenizer = PromptTokenizer(contents, spec.max_tokens, spec.truncation, spec.asides)
        self._parts = spec.parts
        with _only_checked_files(directory) as folder:
            self._load(folder)

    def _load(self, directory: Path) -> None:
        import torch
        from transformers import AutoConfig, AutoModel

        spec = self._spec
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        highest = max(halves for _, halves in spec.parts)
        if highest > 2 * config.num_hidden_layers:
            raise EncoderError(
                f"pooling must name layers up to {config.num_hidden_layers}, the last of {spec.model_id}, got "
                f"{list(spec.pooling)}."
            )
        between = sorted({halves // 2 for _, halves in spec.parts if halves % 2})
        if between and config.model_type not in _BERTS:
            raise EncoderError(
                f"pooling must name whole layers for {config.model_type!r}, got {list(spec.pooling)}; .5 is for "
                f"{', '.join(sorted(_BERTS))}."
            )
        # RoBERTa counts positions from after the padding token's.
        first = 1 + (config.pad_token_id or 0) if "roberta" in config.model_type else 0
        if spec.max_tokens > (longest := getattr(config, "max_position_embeddings", spec.max_tokens) - first):
            raise EncoderError(f"max_tokens must be {longest} at most for {spec.model_id}, got {spec.max_tokens}.")
        if config.model_type in _BERTS:
            config.num_hidden_layers = -(-highest // 2)
        model = _quietly(
            lambda: AutoModel.from_pretrained(
                directory, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        )
        self._model = model.eval().to(self._device)
        self._between = threading.local()  # states between the halves of layers, of the pass of this thread
        for layer in between:
            model.encoder.layer[layer].attention.register_forward_hook(partial(self._keep, 2 * layer + 1))
        if highest % 2:
            # Nobody reads what the last layer's feed-forward network would make of it.
            model.encoder.layer[-1].feed_forward_chunk = lambda attended: attended
        # Some models count positions by the tokens that are not this one.
        self._padding = getattr(config, "pad_token_id", None) or 0
        self._n_features = len(spec.parts) * int(config.hidden_size)

    @property
    def spec(self) -> EncoderSpec:
        """Spec of this encoder."""
        return self._spec

    @property
    def n_features(self) -> int:
        """The width d of the features, which is the number of parts of the pooling times the hidden size."""
        return self._n_features

    def encode(self, text: str) -> FloatArray:
        """Return the features of one text, shape (d,), float32.

        Raises DataError for text that is not valid Unicode, EncoderError if the features are not finite.
        """
        features: FloatArray = self._features([self._tokenizer(text)])[0]
        return features

    def _features(self, prompts: Sequence[Sequence[int]]) -> FloatArray:
        # Token ids of n prompts -> (n, d), in one pass.
        shape = len(prompts), max(map(len, prompts))
        ids, real = np.full(shape, self._padding), np.zeros(shape, dtype=bool)
        for row, tokens in enumerate(prompts):
            ids[row, : len(tokens)], real[row, : len(tokens)] = tokens, True
        torch = self._torch
        with torch.inference_mode():
            mask = torch.from_numpy(real).to(self._device)
            self._between.states = {}
            whole = self._model(
                input_ids=torch.from_numpy(ids).to(self._device), attention_mask=mask.long(), output_hidden_states=True
            ).hidden_states
            # Taken out, so that nothing of a pass outlives it.
            states = dict(zip(range(0, 2 * len(whole), 2), whole, strict=True)) | self._between.__dict__.pop("states")
            pooled = torch.cat([_POOL[kind](states[halves], mask[..., None]) for kind, halves in self._parts], dim=1)
        return self._spec.finite(pooled.cpu().numpy())

    def _keep(self, halves: int, _module: Any, _inputs: Any, output: Any) -> None:
        # A tuple or its first member, as the version of transformers likes.
        self._between.states[halves] = output[0] if isinstance(output, tuple) else output


class TorchBatchEncoder(TorchEncoder):
    """Encodes many prompts in one forward pass of the reference, for hardware that wants batches.

    A prompt's features in a batch are those it has alone up to rounding: sums may be taken in another order.
    """

    @property
    def batch_tokens(self) -> int:
        """The largest number of tokens in one forward pass, padding included."""
        return BATCH_TOKENS

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids that `encode_batch` takes. Raises DataError for invalid Unicode."""
        return self._tokenizer(text)

    def encode_batch(self, prompts: Sequence[Sequence[int]]) -> FloatArray:
        """Return the features (n, d), float32, of n prompts given as token ids, in one pass padded to the longest.

        Raises EncoderError if any of them are not finite, and what torch raises, RuntimeError, if memory does not do.
        """
        return self._features(prompts)


def torch_device() -> str:
    """Return the device for torch: $ELLE_TORCH_DEVICE if set, else the GPU if torch sees one, else the CPU.

    Raises EncoderError for a device that is none or is not there.
    """
    import torch

    device = os.environ.get(DEVICE_VARIABLE) or ("cuda" if torch.cuda.is_available() else "cpu")
    named = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if named is None:
        raise EncoderError(f"{DEVICE_VARIABLE} must be cpu, cuda or cuda:N, got {device!r}.")
    if device != "cpu" and int(named[1] or 0) >= (seen := torch.cuda.device_count()):
        raise EncoderError(
            f"{DEVICE_VARIABLE} is {device}, but torch sees {seen} GPUs; install a build of torch for yours, or set "
            f"{DEVICE_VARIABLE}=cpu."
        )
    return device


def load_torch_encoder(spec: EncoderSpec, directory: Path | None = None) -> TorchEncoder:
    """Load the encoder in torch, on a GPU if there is one. Arguments and errors are those of `load_encoder`."""
    require_config_digest(spec)
    found = find_encoder(spec, directory)
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise EncoderError(
            f"encoding in float32 needs {' and '.join(missing)}, not installed; install them with "
            f"`pip install 'elle-router[torch]'`."
        )
    device = torch_device()
    # Padding costs a CPU two to four times; a GPU is idle without a batch.
    return TorchEncoder(spec, found) if device == "cpu" else TorchBatchEncoder(spec, found, device)


@contextmanager
def _only_checked_files(directory: Path) -> Iterator[Path]:
    # transformers reads what else a folder holds (adapters, say), and nothing says whose that is.
    with TemporaryDirectory() as folder:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            (Path(folder) / name).symlink_to((directory / name).resolve())
        yield Path(folder)


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
