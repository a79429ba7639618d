"""Put other people's encoders behind our service, so that only the encoder differs.

Weights are random where only size counts. Prompts are cut at 512 tokens, as these routers do, and tokenised by
MiniLM's tokenizer: their own are not at hand.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probes.encoders.files import TOKENIZER_FILE, find_encoder
from probes.encoders.load import load_encoder
from probes.encoders.spec import MINILM_L6_FLOAT32, Encoder, EncoderSpec, FloatArray
from probes.encoders.tokens import PromptTokenizer

TORCH_THREADS = "ELLE_BENCH_TORCH_THREADS"


def stand_in_spec(name: str) -> EncoderSpec:
    """Return a spec that names no files, because the benchmark's server loads the encoder itself."""
    return EncoderSpec(
        model_id=f"benchmark/{name}",
        revision="none",
        weights_sha256=hashlib.sha256(name.encode()).hexdigest(),
        tokenizer_sha256="0" * 64,
        pooling=("mean@0",),
        max_tokens=512,
    )


class _StandIn:
    """Defines what the three have in common: a name, a width, and one prompt at a time."""

    name = ""
    n_features = 0

    @property
    def spec(self) -> EncoderSpec:
        """The spec of this encoder, which names no files."""
        return stand_in_spec(self.name)


class SentenceTransformersEncoder(_StandIn):
    """Encodes by `SentenceTransformer.encode` with the real MiniLM, all six layers, as its users call it."""

    name, n_features = "sentence-transformers", 384

    def __init__(self) -> None:
        from sentence_transformers import SentenceTransformer

        _torch_threads()
        self._model = SentenceTransformer(str(find_encoder(MINILM_L6_FLOAT32)), device="cpu")

    def encode(self, text: str) -> FloatArray:
        """Return the features of one text."""
        found: FloatArray = self._model.encode(text, show_progress_bar=False)
        return found


class RandomClassifier(_StandIn):
    """Encodes by a base-sized transformer with a classifier head and random weights, one prompt per pass in torch."""

    n_features = 2

    def __init__(self, name: str, config_class: str) -> None:
        import transformers

        self.name = name
        _torch_threads()
        config: Any = getattr(transformers, config_class)(num_labels=2)
        if config_class == "XLMRobertaConfig":
            # The defaults of this class are BERT's; these are xlm-roberta-base's.
            config.vocab_size, config.max_position_embeddings, config.type_vocab_size = 250_002, 514, 1
        self._model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
        self._tokenizer = PromptTokenizer((find_encoder(MINILM_L6_FLOAT32) / TOKENIZER_FILE).read_bytes(), 512, "head")

    def encode(self, text: str) -> FloatArray:
        """Return the features of one text."""
        import torch

        with torch.inference_mode():
            ids = torch.tensor([self._tokenizer(text)])
            found: FloatArray = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].numpy()
        return found


class LiteLLMHeuristic(_StandIn):
    """Runs LiteLLM's complexity router with the classifier `heuristic`: words and lengths, no encoder."""

    name, n_features = "litellm-heuristic", 2

    def __init__(self) -> None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter

        self._router = ComplexityRouter(
            "baseline",
            None,
            complexity_router_config={
                "tiers": dict.fromkeys(("SIMPLE", "MEDIUM", "COMPLEX", "REASONING"), "x"),
                "classifier_type": "heuristic",
            },
            default_model="x",
        )
        self._local = threading.local()

    def encode(self, text: str) -> FloatArray:
        """Return the features of one text."""
        if not hasattr(self._local, "loop"):
            self._local.loop = asyncio.new_event_loop()
        outcome = self._local.loop.run_until_complete(self._router.aclassify(text))
        return np.array([float(outcome.score), 1.0], dtype=np.float32)


ENCODERS: Mapping[str, Callable[[], Encoder]] = {
    "elle-float32": lambda: load_encoder(MINILM_L6_FLOAT32),
    "sentence-transformers": SentenceTransformersEncoder,
    "xlm-r-base": lambda: RandomClassifier("xlm-r-base", "XLMRobertaConfig"),
    "modernbert-base": lambda: RandomClassifier("modernbert-base", "ModernBertConfig"),
    "litellm-heuristic": LiteLLMHeuristic,
}


def _torch_threads() -> None:
    import torch

    torch.set_num_threads(int(os.environ.get(TORCH_THREADS, "1")))
