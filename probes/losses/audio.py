"""Measure losses of audio models: the contrastive loss of Wav2Vec2, and the ELLE article's surrogate for HuBERT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError
from probes.losses.models import Pretrained, inference, numpy32, require_draws, sample_rng
from probes.losses.pairs import LossLoader

Waves = Sequence[NDArray[np.floating[Any]]]


@dataclass(eq=False, repr=False)
class HubertSurrogate(Pretrained, LossLoader[NDArray[np.floating[Any]]]):
    """Measure the mean absolute value of the last hidden state, as the notebook of the ELLE article does for HuBERT.

    This is not a pretraining loss: HuBERT's own needs the k-means labels of its training, which are not published with
    the weights. It is here so that the result of the article can be repeated; use `Wav2Vec2Contrastive` for a real
    objective. The embedding is the mean of the last hidden state over time. Samples are mono float waveforms (t,) at
    the model's rate.
    """

    objective: ClassVar[str] = "hubert_surrogate"
    classes: ClassVar[tuple[str, ...]] = ("HubertModel", "AutoFeatureExtractor")

    model: Any
    extractor: Any = None

    def settings(self) -> dict[str, Any]:
        """Return the identity of the model and the settings as JSON values."""
        return super().settings() | {"loss": "mean absolute last hidden state, a surrogate"}

    def measure(self, samples: Waves, first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return embeddings (b, d) and surrogate losses (b,) of waveforms."""
        embeddings: list[NDArray[Any]] = [np.empty(0)] * len(samples)
        losses = np.zeros(len(samples))
        with inference(self.model) as device:
            for places, waves in _equal_lengths(samples, self.extractor, self.model, first):
                hidden = self.model(_tensor(waves, device)).last_hidden_state
                for place, embedding, loss in zip(
                    places,
                    numpy32(hidden.mean(dim=1)),
                    hidden.abs().double().mean(dim=(1, 2)).tolist(),
                    strict=True,
                ):
                    embeddings[place], losses[place] = embedding, loss
        return np.stack(embeddings), losses


@dataclass(eq=False, repr=False)
class Wav2Vec2Contrastive(Pretrained, LossLoader[NDArray[np.floating[Any]]]):
    """Measure the nats to tell a masked frame's quantised target from `negatives` others (Baevski et al. 2020, eq. 3).

    Spans of `span` frames that cover about `mask_fraction` of the time are masked. The context vector of every masked
    frame is compared, by cosine / `config.contrastive_logits_temperature`, with its own target and with targets drawn
    from the other masked frames of the same wave; a distractor equal to the target does not count. The loss is the
    mean over masked frames and seeded `draws`. The embedding is the mean over time of the unmasked pass. `model` is a
    Wav2Vec2ForPreTraining.
    """

    objective: ClassVar[str] = "wav2vec2_contrastive"
    classes: ClassVar[tuple[str, ...]] = ("Wav2Vec2ForPreTraining", "AutoFeatureExtractor")
    setting_names: ClassVar[tuple[str, ...]] = ("mask_fraction", "span", "negatives", "draws", "seed")

    model: Any
    extractor: Any = None
    _: KW_ONLY
    mask_fraction: float = 0.5
    span: int = 10
    negatives: int = 100
    draws: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        require_draws(self.draws, self.mask_fraction, "mask_fraction")
        if self.span < 1 or self.negatives < 1:
            raise DataError(f"span and negatives must be at least 1, got {self.span} and {self.negatives}")

    def measure(self, samples: Waves, first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return embeddings (b, d) of waveforms and their losses in nats per masked frame (b,)."""
        embeddings: list[NDArray[Any]] = [np.empty(0)] * len(samples)
        losses = np.zeros(len(samples))
        with inference(self.model) as device:
            for places, waves in _equal_lengths(samples, self.extractor, self.model, first):
                values = _tensor(waves, device)
                hidden = self.model.wav2vec2(values).last_hidden_state
                for place, embedding in zip(places, numpy32(hidden.mean(dim=1)), strict=True):
                    embeddings[place] = embedding
                for draw in range(self.draws):
                    losses[places] += self._draw(values, waves, hidden.shape[1], draw, first + places[0])
        return np.stack(embeddings), losses / self.draws

    def _draw(
        self, values: Any, waves: NDArray[np.float32], frames: int, draw: int, number: int
    ) -> NDArray[np.float64]:
        import torch

        rngs = [sample_rng(self.seed, draw, wave.tobytes()) for wave in waves]
        masks = np.stack([self.time_mask(frames, rng, number) for rng in rngs])
        output = self.model(values, mask_time_indices=torch.from_numpy(masks).to(values.device))
        return np.array(
            [
                self._contrast(context[mask], target[mask], rng)
                for context, target, mask, rng in zip(
                    output.projected_states, output.projected_quantized_states, masks, rngs, strict=True
                )
            ]
        )

    def time_mask(self, frames: int, rng: np.random.Generator, number: int = 0) -> NDArray[np.bool_]:
        """Return (frames,) booleans, True for a hidden frame; spans lie at random and hide at least two frames."""
        span = min(self.span, frames)
        if frames < 2:
            raise DataError(f"wave of sample {number} must give at least two frames, got {frames}: it is too short")
        mask = np.zeros(frames, dtype=bool)
        count = max(1, round(self.mask_fraction * frames / span))
        for start in rng.choice(frames - span + 1, size=min(count, frames - span + 1), replace=False):
            mask[start : start + span] = True
        while mask.sum() < 2:
            mask[rng.integers(frames)] = True
        return mask

    def _contrast(self, context: Any, target: Any, rng: np.random.Generator) -> float:
        import torch

        hidden = len(target)
        # Distractors are uniform over the other masked frames: a draw at or after the own place moves one further.
        others = rng.integers(hidden - 1, size=(hidden, self.negatives))
        others += others >= np.arange(hidden)[:, None]
        candidates = torch.cat([target[:, None], target[torch.from_numpy(others).to(target.device)]], dim=1).double()
        logits = torch.nn.functional.cosine_similarity(context.double()[:, None], candidates, dim=-1)
        logits = logits / self.model.config.contrastive_logits_temperature
        same = (candidates[:, 1:] == candidates[:, :1]).all(dim=-1)
        logits[:, 1:][same] = -torch.inf
        return float((torch.logsumexp(logits, dim=1) - logits[:, 0]).mean())


def _equal_lengths(
    samples: Waves, extractor: Any, model: Any, first: int
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Group waveforms by length: yield their places and the waveforms (k, t), one pair for each length.

    Waves are not padded: these models normalise over time, so silence at the end would change the result.
    """
    rate = None if extractor is None else extractor.sampling_rate
    groups: dict[int, list[int]] = {}
    waves: list[NDArray[np.float32]] = []
    for place, sample in enumerate(samples):
        wave = np.asarray(sample)
        if wave.ndim != 1 or wave.dtype.kind != "f":
            raise DataError(
                f"sample {first + place} must be a mono waveform (t,) of floats, got shape {wave.shape}, "
                f"dtype {wave.dtype}"
            )
        if not np.isfinite(wave).all():
            raise DataError(f"wave of sample {first + place} must be finite, got NaN or infinity")
        if int(model._get_feat_extract_output_lengths(wave.size)) < 1:
            raise DataError(f"wave of sample {first + place} is too short for one frame: {wave.size} values")
        if extractor is not None:
            wave = extractor(wave, sampling_rate=rate, return_tensors="np")["input_values"][0]
        waves.append(np.ascontiguousarray(wave, dtype=np.float32))
        groups.setdefault(wave.size, []).append(place)
    for places in groups.values():
        yield places, np.stack([waves[place] for place in places])


def _tensor(waves: NDArray[np.float32], device: Any) -> Any:
    import torch

    return torch.from_numpy(waves).to(device)
