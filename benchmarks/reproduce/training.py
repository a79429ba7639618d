"""Small models trained on the spot, each with the objective whose loss is measured afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.losses import Denoising, MaskedLM
from probes.losses.models import attention, pad, sample_rng
from probes.losses.pairs import slices

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
Step = Callable[[np.random.Generator], Any]


def seeded(seed: int = 0) -> np.random.Generator:
    """Seed torch's initial weights and give the generator of the batches."""
    import torch

    torch.manual_seed(seed)
    return np.random.default_rng(seed)


def descend(parameters: Any, loss_of: Step, steps: int, rate: float, rng: np.random.Generator) -> None:
    """AdamW with warm-up and cosine decay."""
    import torch

    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / (0.1 * steps)) * 0.5 * (1 + np.cos(np.pi * step / steps)),
    )
    for _ in slices(steps, 1, "training"):
        optimizer.zero_grad()
        loss_of(rng).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()


def tokenizer(texts: Sequence[str], vocabulary: int = 2000) -> Any:
    """A byte-level BPE tokenizer trained on `texts`, with <s> ... </s> around each."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.processors import TemplateProcessing
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(BPE(unk_token=SPECIALS[3]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(texts, BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIALS, show_progress=False))
    inner.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    names = {
        "pad": "<pad>",
        "bos": "<s>",
        "eos": "</s>",
        "cls": "<s>",
        "sep": "</s>",
        "unk": "<unk>",
        "mask": "<mask>",
    }
    return PreTrainedTokenizerFast(tokenizer_object=inner, **{f"{name}_token": token for name, token in names.items()})


def _ids(words: Any, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    return list(words(list(texts), truncation=True, max_length=max_tokens)["input_ids"])


def _token_batches(rows: list[list[int]], size: int) -> Callable[[np.random.Generator], list[list[int]]]:
    """Random batches of rows of about one length, so that little is padding."""
    rows = sorted(rows, key=len)
    return lambda rng: rows[(start := int(rng.integers(len(rows) - size))) : start + size]


def masked_lm(texts: Sequence[str], steps: int, max_tokens: int = 48) -> MaskedLM:
    """A BERT of 0.5 M parameters besides its vocabulary."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    rng, words = seeded(), tokenizer(texts)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=384,
        max_position_embeddings=max_tokens,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForMaskedLM(config).train()
    loader = MaskedLM(model, words, draws=3, max_tokens=max_tokens, pooling="mean")
    batch_of = _token_batches(_ids(words, texts, max_tokens), 64)

    def loss_of(rng: np.random.Generator) -> Any:
        rows = batch_of(rng)
        draw = int(rng.integers(1 << 30))
        pairs = [loader._masked(row, draw, 0) for row in rows]
        mask = attention(rows, torch.device("cpu"))
        hidden = model.bert(pad([p[0] for p in pairs], 0, mask.device), attention_mask=mask).last_hidden_state
        labels = pad([p[1] for p in pairs], -100, mask.device)
        wanted = labels != -100
        return torch.nn.functional.cross_entropy(model.cls(hidden[wanted]), labels[wanted])

    descend(model.parameters(), loss_of, steps, 2e-3, rng)
    return loader


def causal_lm(texts: Sequence[str], steps: int, max_tokens: int = 48) -> Any:
    """A GPT-2 of the same size."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from probes.losses import CausalLM

    rng, words = seeded(), tokenizer(texts)
    config = GPT2Config(
        vocab_size=len(words),
        n_embd=128,
        n_layer=3,
        n_head=4,
        n_inner=384,
        n_positions=max_tokens,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = GPT2LMHeadModel(config).train()
    batch_of = _token_batches(_ids(words, texts, max_tokens), 64)

    def loss_of(rng: np.random.Generator) -> Any:
        rows = batch_of(rng)
        mask = attention(rows, torch.device("cpu"))
        return model(pad(rows, 0, mask.device), attention_mask=mask, labels=pad(rows, -100, mask.device)).loss

    descend(model.parameters(), loss_of, steps, 2e-3, rng)
    return CausalLM(model, words, max_tokens=max_tokens)


def denoising(texts: Sequence[str], steps: int, max_tokens: int = 48) -> Denoising:
    """A BART with two encoder and two decoder layers."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    rng, words = seeded(), tokenizer(texts)
    config = BartConfig(
        vocab_size=len(words),
        d_model=128,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=384,
        decoder_ffn_dim=384,
        max_position_embeddings=max_tokens,
        dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )
    model = BartForConditionalGeneration(config).train()
    loader = Denoising(model, words, draws=2, max_tokens=max_tokens, pooling="mean")
    batch_of = _token_batches(_ids(words, texts, max_tokens), 64)

    def loss_of(rng: np.random.Generator) -> Any:
        rows = batch_of(rng)
        draw = int(rng.integers(1 << 30))
        noisy = [loader.corrupted(row, draw) for row in rows]
        cpu = torch.device("cpu")
        return model(pad(noisy, 0, cpu), attention_mask=attention(noisy, cpu), labels=pad(rows, -100, cpu)).loss

    descend(model.parameters(), loss_of, steps, 2e-3, rng)
    return loader


def _vit(size: int, patch: int, channels: int) -> dict[str, Any]:
    return {
        "image_size": size,
        "patch_size": patch,
        "num_channels": channels,
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 288,
    }


def masked_image(images: Sequence[NDArray[np.float32]], steps: int, patch: int, mask_ratio: float) -> Any:
    """A ViT-MAE of 0.3 M parameters; pixels are standardised by the caller or left as they are."""
    import torch
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    from probes.losses import MaskedImage

    rng = seeded()
    stack = torch.from_numpy(np.stack(images))
    config = ViTMAEConfig(
        **_vit(stack.shape[-1], patch, stack.shape[1]),
        decoder_hidden_size=64,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=192,
        mask_ratio=mask_ratio,
    )
    model = ViTMAEForPreTraining(config).train()
    descend(
        model.parameters(),
        lambda rng: model(stack[torch.from_numpy(rng.integers(len(stack), size=96))]).loss,
        steps,
        2e-3,
        rng,
    )
    return MaskedImage(model, draws=8)


def jittered(image: NDArray[np.float32], rng: np.random.Generator, count: int = 2) -> list[NDArray[np.float32]]:
    """Views of an image: moved by up to one pixel, contrast and brightness changed, noise added."""
    views = []
    for _ in range(count):
        moved = np.roll(image, tuple(rng.integers(-1, 2, size=2)), axis=(1, 2))
        changed = moved * rng.uniform(0.8, 1.2) + rng.uniform(-0.1, 0.1) + 0.05 * rng.normal(size=image.shape)
        views.append(changed.astype(np.float32))
    return views


def eight_jittered(image: NDArray[np.float32], rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Eight views for measuring: the 56 ordered pairs average out the chance of the draw."""
    return jittered(image, rng, 8)


def self_distillation(images: Sequence[NDArray[np.float32]], steps: int) -> Any:
    """DINO: a student ViT with a projection head, and a teacher that is its moving average (Caron et al.
    2021)."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    from probes.losses import ViewConsistency

    rng = seeded()
    config = Dinov2Config(
        **_vit(images[0].shape[-1], 2, images[0].shape[0]),
        drop_path_rate=0.0,
        layerscale_value=1.0,
        # At the usual 0.02 the class token hardly sees the image, and DINO settles on one answer for all.
        initializer_range=0.15,
    )
    student = Dinov2Model(config)
    head = _projection_head(96, 64)
    teacher, teacher_head = copy.deepcopy(student).eval(), copy.deepcopy(head).eval()
    center = torch.zeros(64)

    def loss_of(rng: np.random.Generator) -> Any:
        _follow([(teacher, student), (teacher_head, head)], 0.99)
        batch = [jittered(images[i], rng) for i in rng.integers(len(images), size=64)]
        views = [torch.from_numpy(np.stack(view)) for view in zip(*batch, strict=True)]
        with torch.no_grad():
            wanted = [teacher_head(teacher(view).last_hidden_state[:, 0]) for view in views]
        given = [head(student(view).last_hidden_state[:, 0]) for view in views]
        targets = [torch.softmax((w - center) / 0.04, dim=-1) for w in wanted]
        center.mul_(0.9).add_(0.1 * torch.cat(wanted).mean(dim=0))
        pairs = ((targets[0], given[1]), (targets[1], given[0]))
        return sum(-(t * torch.log_softmax(g / 0.1, dim=-1)).sum(dim=-1).mean() for t, g in pairs) / 2

    descend([*student.parameters(), *head.parameters()], loss_of, steps, 1e-3, rng)
    return ViewConsistency(
        student,
        teacher=teacher,
        views=eight_jittered,
        heads=(head, teacher_head),
        center=center.numpy(),
        teacher_temperature=0.04,
    )


def _projection_head(width: int, prototypes: int) -> Any:
    """Cosines to learned prototypes, as DINO's head: without the two normalisations the answers shrink to uniform."""
    import torch
    from torch.nn.functional import normalize

    class Cosines(torch.nn.Linear):
        def forward(self, hidden: Any) -> Any:
            return normalize(hidden, dim=-1) @ normalize(self.weight, dim=-1).T

    return torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.GELU(), torch.nn.Linear(width, 32), Cosines(32, prototypes, bias=False)
    )


def _follow(pairs: list[tuple[Any, Any]], momentum: float) -> None:
    import torch

    with torch.no_grad():
        for slow, fast in pairs:
            for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
                one.mul_(momentum).add_(other, alpha=1 - momentum)


def wav2vec2(waves: Sequence[NDArray[np.float32]], steps: int) -> Any:
    """A Wav2Vec2 with three convolutions (20 samples a frame) and two transformer layers."""
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


def location_towers(
    pairs: Sequence[tuple[NDArray[np.float32], NDArray[Any]]], steps: int
) -> Callable[[Sequence[Any], Sequence[Any]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """SatCLIP's idea in small: a ViT for scenes and a network for places, trained by symmetric InfoNCE."""
    import torch
    from transformers import ViTConfig, ViTModel

    rng = seeded()
    images = torch.from_numpy(np.stack([image for image, _ in pairs]))
    places = torch.from_numpy(np.stack([_harmonics(place) for _, place in pairs]))
    vision = ViTModel(ViTConfig(**_vit(images.shape[-1], 4, images.shape[1])), add_pooling_layer=False)
    projection = torch.nn.Linear(96, 64)
    ground = torch.nn.Sequential(torch.nn.Linear(places.shape[1], 128), torch.nn.GELU(), torch.nn.Linear(128, 64))

    def towers(pixels: Any, coordinates: Any) -> tuple[Any, Any]:
        seen = projection(vision(pixels).last_hidden_state[:, 0])
        return seen, ground(coordinates)

    def loss_of(rng: np.random.Generator) -> Any:
        rows = torch.from_numpy(rng.integers(len(images), size=96))
        a, b = (torch.nn.functional.normalize(side, dim=1) for side in towers(images[rows], places[rows]))
        logits, own = a @ b.T / 0.1, torch.arange(len(rows))
        cross_entropy = torch.nn.functional.cross_entropy
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2

    descend([*vision.parameters(), *projection.parameters(), *ground.parameters()], loss_of, steps, 2e-3, rng)

    def embed(scenes: Sequence[Any], where: Sequence[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        parts: list[tuple[Any, Any]] = []
        with torch.no_grad():
            for start in range(0, len(scenes), 256):
                pixels = torch.from_numpy(np.stack(scenes[start : start + 256]))
                coordinates = torch.from_numpy(np.stack([_harmonics(p) for p in where[start : start + 256]]))
                parts.append(towers(pixels, coordinates))
        return tuple(torch.cat(side).numpy() for side in zip(*parts, strict=True))  # type: ignore[return-value]

    return embed


def _harmonics(place: NDArray[Any]) -> NDArray[np.float32]:
    longitude, latitude = np.radians(place)
    waves = [f(k * angle) for k in (1, 2, 3, 4) for angle in (longitude, latitude) for f in (np.sin, np.cos)]
    return np.array(waves, dtype=np.float32)
