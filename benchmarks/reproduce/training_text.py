"""Train small language models on the spot, each with the objective whose loss is measured afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.reproduce.training import descend, seeded
from probes.losses import Denoising, MaskedLM
from probes.losses.models import attention, pad

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]


def tokenizer(texts: Sequence[str], vocabulary: int = 2000) -> Any:
    """Train a byte-level BPE tokenizer on `texts`, with <s> ... </s> around each."""
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
    """Yield random batches of rows of about one length, so that little is padding."""
    rows = sorted(rows, key=len)
    return lambda rng: rows[(start := int(rng.integers(len(rows) - size))) : start + size]


def masked_lm(texts: Sequence[str], steps: int, max_tokens: int = 48) -> MaskedLM:
    """Train a BERT of 0.5 M parameters besides its vocabulary."""
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
    """Train a GPT-2 of the same size as the BERT."""
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
    """Train a BART with two encoder and two decoder layers."""
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
