"""Measure pretraining losses of single samples, which an ELLE probe learns to predict from an embedding.

Every loader turns samples into `LossPairs`: the embedding of the *clean* input, and the loss of the model's own
objective on that input. Importing this package loads neither torch nor transformers; a loader imports them when it
runs.
"""

from probes.losses.audio import HubertSurrogate, Wav2Vec2Contrastive
from probes.losses.causal_lm import CausalLM
from probes.losses.contrastive import (
    SentencePairs,
    TwoTowers,
    contrastive_pairs,
    cosine_misalignment,
    info_nce,
    symmetric_info_nce,
)
from probes.losses.hidden_tokens import Denoising, MaskedLM
from probes.losses.masked_image import MaskedImage
from probes.losses.pairs import LossLoader, LossPairs
from probes.losses.precomputed import read_pairs, write_pairs
from probes.losses.routing import (
    completion_token_loss,
    judge_losses,
    losses_from_scores,
    routing_pairs,
    token_losses,
)
from probes.losses.self_distillation import ViewConsistency, flip_views

__all__ = [
    "CausalLM",
    "Denoising",
    "HubertSurrogate",
    "LossLoader",
    "LossPairs",
    "MaskedImage",
    "MaskedLM",
    "SentencePairs",
    "TwoTowers",
    "ViewConsistency",
    "Wav2Vec2Contrastive",
    "completion_token_loss",
    "contrastive_pairs",
    "cosine_misalignment",
    "flip_views",
    "info_nce",
    "judge_losses",
    "losses_from_scores",
    "read_pairs",
    "routing_pairs",
    "symmetric_info_nce",
    "token_losses",
    "write_pairs",
]
