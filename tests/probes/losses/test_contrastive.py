"""InfoNCE, cosine misalignment, two towers and sentence encoders."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import DataError, DimensionError
from probes.losses import SentencePairs, TwoTowers, contrastive_pairs, cosine_misalignment, info_nce, symmetric_info_nce

torch = pytest.importorskip("torch", reason="the loss loaders need the torch extra")
transformers = pytest.importorskip("transformers", reason="the loss loaders need the torch extra")


@pytest.fixture
def towers():
    rng = np.random.default_rng(0)
    anchors = rng.normal(size=(40, 8))
    return anchors, anchors + rng.normal(size=(40, 8))


def test_info_nce_is_torchs_cross_entropy_over_scaled_cosines(towers):
    a, b = (torch.nn.functional.normalize(torch.from_numpy(side), dim=1) for side in towers)
    own = torch.nn.functional.cross_entropy(a @ b.T / 0.1, torch.arange(40), reduction="none")
    np.testing.assert_allclose(info_nce(*towers, temperature=0.1), own, rtol=1e-10)
    back = torch.nn.functional.cross_entropy(b @ a.T / 0.1, torch.arange(40), reduction="none")
    np.testing.assert_allclose(symmetric_info_nce(*towers, temperature=0.1), (own + back) / 2, rtol=1e-10)


def test_indistinguishable_partners_cost_the_log_of_their_number():
    same = np.ones((2500, 3))  # more rows than one block
    np.testing.assert_allclose(info_nce(same, same, temperature=0.05), np.log(2500), rtol=1e-12)


def test_a_batch_holds_fewer_distractors_and_is_easier(towers):
    everyone = info_nce(*towers, temperature=0.1)
    few = info_nce(*towers, temperature=0.1, batch_size=10, draws=200)
    assert (few < everyone).all()
    same = np.ones((40, 3))
    np.testing.assert_allclose(info_nce(same, same, temperature=1.0, batch_size=10), np.log(10), rtol=1e-12)


def test_batches_are_seeded(towers):
    one, two, other = (info_nce(*towers, temperature=0.1, batch_size=10, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)


def test_scale_of_the_embeddings_does_not_matter(towers):
    a, b = towers
    np.testing.assert_allclose(info_nce(9 * a, b / 9, temperature=0.1), info_nce(a, b, temperature=0.1), rtol=1e-9)


def test_cosine_misalignment_runs_from_zero_to_two():
    a = np.array([[1.0, 0], [1, 0], [1, 0]])
    np.testing.assert_allclose(cosine_misalignment(a, [[5, 0], [0, 2], [-3, 0]]), [0, 1, 2], atol=1e-12)


def test_any_two_arrays_become_pairs_with_the_anchors_as_embeddings(towers):
    image, location = towers
    pairs = contrastive_pairs(image, location, loss="cosine", ids=map(str, range(40)))
    np.testing.assert_allclose(pairs.embeddings, image, rtol=1e-6)
    np.testing.assert_allclose(pairs.losses, cosine_misalignment(image, location))
    assert pairs.provenance == {"objective": "contrastive", "loss": "cosine"}
    assert contrastive_pairs(image, location, temperature=0.1).provenance["temperature"] == 0.1


def test_numbers_that_give_no_direction_are_named(towers):
    a, b = towers
    for bad in (np.nan, np.inf):
        broken = a.copy()
        broken[7, 2] = bad
        with pytest.raises(DataError, match="row 7 of anchors"):
            info_nce(broken, b, temperature=0.1)
    zero = b.copy()
    zero[3] = 0
    with pytest.raises(DataError, match="row 3 of partners"):
        cosine_misalignment(a, zero)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"draws": 0, "batch_size": 4}, "draws at least 1"),
        ({"batch_size": 1}, "at least two pairs"),
    ],
)
def test_settings_without_sense_are_refused(towers, change, error):
    with pytest.raises(DataError, match=error):
        info_nce(*towers, **{"temperature": 0.1, **change})


def test_shapes_must_agree_and_one_pair_is_not_enough(towers):
    a, b = towers
    with pytest.raises(DimensionError, match="one shape"):
        info_nce(a, b[:-1], temperature=0.1)
    with pytest.raises(DataError, match="at least two pairs, got n=1"):
        info_nce(a[:1], b[:1], temperature=0.1)


@pytest.fixture
def sentences(tokenizer, bert_config):
    return SentencePairs(transformers.BertModel(bert_config), tokenizer, negatives_batch=None)


def test_sentence_embeddings_do_not_depend_on_the_batch_and_keep_their_order(sentences, texts):
    together = sentences.embed(texts, batch_size=5)
    for place, text in enumerate(texts):
        np.testing.assert_allclose(sentences.embed([text])[0], together[place], rtol=1e-3, atol=1e-5)
    hidden = sentences.model.eval()(torch.tensor([sentences.tokenizer(texts[1])["input_ids"]])).last_hidden_state
    np.testing.assert_allclose(together[1], hidden[0].mean(0).detach(), rtol=1e-4, atol=1e-5)


def test_sentence_pairs_measure_info_nce_of_their_embeddings(sentences, texts):
    partners = texts[1:] + texts[:1]
    pairs = sentences.collect(texts, partners, batch_size=2)
    expected = info_nce(sentences.embed(texts), sentences.embed(partners), temperature=0.05)
    np.testing.assert_allclose(pairs.losses, expected, rtol=1e-4, atol=1e-6)
    assert pairs.provenance["objective"] == "contrastive"
    with pytest.raises(DataError, match="one partner per anchor"):
        sentences.collect(texts, partners[:-1])
    with pytest.raises(DataError, match="at least one text"):
        sentences.embed([])


class ClipInputs(dict):
    """What a processor returns: a dict that moves to a device."""

    def to(self, device):
        return ClipInputs({key: value.to(device) for key, value in self.items()})


@pytest.fixture
def clip(tokenizer):
    text = {"vocab_size": 20, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    vision = {
        "image_size": 16,
        "patch_size": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
    }
    config = transformers.CLIPConfig(
        text_config={
            **text,
            "num_attention_heads": 4,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "max_position_embeddings": 64,
        },
        vision_config={**vision, "num_attention_heads": 4},
        projection_dim=16,
    )

    def processor(images, text, **options):
        words = tokenizer(text, return_tensors=options["return_tensors"], padding=True)
        return ClipInputs(pixel_values=torch.from_numpy(np.stack(images)), **words)

    return TwoTowers(transformers.CLIPModel(config), processor, negatives_batch=None)


def test_two_towers_average_to_clips_own_loss(clip, texts):
    images = list(np.random.default_rng(0).normal(size=(5, 3, 16, 16)).astype(np.float32))
    inputs = clip.processor(images, texts, return_tensors="pt")
    wanted = {key: inputs[key] for key in ("input_ids", "attention_mask", "pixel_values")}
    own = clip.model.eval()(**wanted, return_loss=True).loss.item()
    pairs = clip.collect(images, texts, batch_size=2)
    assert pairs.losses.mean() == pytest.approx(own, rel=1e-4)
    assert pairs.embeddings.shape == (5, 16)
    with pytest.raises(DataError, match="one partner per anchor"):
        clip.collect(images, texts[:-1])
