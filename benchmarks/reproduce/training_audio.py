"""Train a small wav2vec 2.0 on the spot, with the objective whose loss is measured afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reproduce.training import descend, seeded
from probes.losses.models import sample_rng


def wav2vec2(waves: Sequence[NDArray[np.float32]], steps: int) -> Any:
    """Train a Wav2Vec2 with three convolutions (20 samples a frame) and two transformer layers."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

    from probes.losses import Wav2Vec2Contrastive

    rng = seeded()
    config = Wav2Vec2Config(
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=288,
        conv_dim=(64, 64, 64),
        conv_kernel=(10, 4, 4),
        conv_stride=(5, 2, 2),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        num_codevectors_per_group=32,
        num_codevector_groups=2,
        codevector_dim=64,
        proj_codevector_dim=64,
        num_negatives=20,
        feat_proj_dropout=0.0,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_quantizer_dropout=0.0,
        layerdrop=0.0,
    )
    model = Wav2Vec2ForPreTraining(config).train()
    loader = Wav2Vec2Contrastive(model, negatives=20, span=5, draws=3)
    stack = np.stack(waves)
    frames = int(model._get_feat_extract_output_lengths(stack.shape[1]))

    def loss_of(rng: np.random.Generator) -> Any:
        batch = stack[rng.integers(len(stack), size=24)]
        masks = np.stack([loader.time_mask(frames, sample_rng(0, int(rng.integers(1 << 30)), b"")) for _ in batch])
        negatives = np.zeros((len(batch), frames, 20), dtype=np.int64)
        for row, mask in enumerate(masks):
            places = np.flatnonzero(mask)
            others = rng.integers(len(places) - 1, size=(len(places), 20))
            others += others >= np.arange(len(places))[:, None]
            # transformers numbers the frames of the whole batch.
            negatives[row, places] = places[others] + row * frames
        output = model(
            torch.from_numpy(batch),
            mask_time_indices=torch.from_numpy(masks),
            sampled_negative_indices=torch.from_numpy(negatives),
        )
        return output.loss / int(masks.sum())

    descend(model.parameters(), loss_of, steps, 1e-3, rng)
    return loader
