"""Build tiny random transformers models and tokenizers from code, so that the loaders run offline."""

from __future__ import annotations

import sys
from typing import Any

import pytest

WORDS = [
    "the",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "a",
    "mat",
    "red",
    "blue",
    "and",
    "then",
    "slept",
    "far",
    "away",
]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
TEXTS = [
    "the cat sat on a red mat",
    "a dog ran far away and then the dog slept",
    "blue cat",
    "the red dog and the blue dog and the cat ran on and on and on then slept on a mat far away",
    "then a cat slept",
]


def word_tokenizer(*, specials: bool = True) -> Any:
    """Return a word-level fast tokenizer that adds <s> ... </s>, as RoBERTa's and BART's do."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    if specials:
        tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


@pytest.fixture
def texts() -> list[str]:
    return list(TEXTS)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return word_tokenizer()


@pytest.fixture(scope="session")
def bare_tokenizer() -> Any:
    """Return a tokenizer of the same words without <s> and </s>, as GPT-like tokenizers give them."""
    return word_tokenizer(specials=False)


@pytest.fixture(autouse=True)
def _weights_are_always_the_same() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def bert_config() -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        # Large enough that different inputs give visibly different answers.
        initializer_range=0.5,
    )
