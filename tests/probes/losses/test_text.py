"""Masked, denoising and causal language-model losses against independent computations."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import DataError, EncoderError, EncoderNotFoundError
from probes.losses import CausalLM, Denoising, MaskedLM

torch = pytest.importorskip("torch", reason="the loss loaders need the torch extra")
transformers = pytest.importorskip("transformers", reason="the loss loaders need the torch extra")


@pytest.fixture
def masked(tokenizer, bert_config):
    return MaskedLM(transformers.BertForMaskedLM(bert_config), tokenizer, draws=2)


@pytest.fixture
def causal(tokenizer):
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.5
    )
    return CausalLM(transformers.GPT2LMHeadModel(config), tokenizer)


@pytest.fixture
def denoising(tokenizer):
    config = transformers.BartConfig(
        vocab_size=20,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
        init_std=0.5,
    )
    return Denoising(transformers.BartForConditionalGeneration(config), tokenizer)


ALL_TEXT = pytest.mark.parametrize("name", ["masked", "causal", "denoising"])


@ALL_TEXT
def test_a_sample_measures_the_same_alone_in_a_batch_and_in_any_order(name, request, texts):
    loader = request.getfixturevalue(name)
    together = loader.collect(texts, batch_size=5)
    for batch_size, order in ((1, [0, 1, 2, 3, 4]), (2, [4, 2, 0, 3, 1])):
        other = loader.collect([texts[place] for place in order], batch_size=batch_size)
        np.testing.assert_allclose(other.losses, together.losses[order], rtol=1e-5)
        np.testing.assert_allclose(other.embeddings, together.embeddings[order], rtol=1e-4, atol=1e-5)


@ALL_TEXT
def test_pairs_have_the_promised_shapes_types_and_provenance(name, request, texts):
    loader = request.getfixturevalue(name)
    pairs = loader.collect(texts, ids=list("abcde"))
    assert pairs.embeddings.shape == (5, 32)
    assert (pairs.embeddings.dtype, pairs.losses.dtype) == (np.float32, np.float64)
    assert pairs.ids == tuple("abcde")
    assert pairs.provenance["objective"] == loader.objective
    assert pairs.provenance["model_class"] == type(loader.model).__name__
    assert (pairs.losses > 0).all()
    assert not pairs.losses.flags.writeable


@ALL_TEXT
def test_the_model_keeps_its_training_mode_and_gets_no_gradients(name, request, texts):
    loader = request.getfixturevalue(name)
    loader.model.train()
    first = loader.collect(texts).losses
    # Dropout would make the second measurement differ.
    np.testing.assert_array_equal(loader.collect(texts).losses, first)
    assert loader.model.training
    assert all(parameter.grad is None for parameter in loader.model.parameters())


@ALL_TEXT
def test_no_samples_is_an_error(name, request):
    with pytest.raises(DataError, match="at least one sample"):
        request.getfixturevalue(name).collect([])


@ALL_TEXT
def test_something_that_is_no_text_is_named(name, request, texts):
    with pytest.raises(DataError, match="sample 3 must be a string, got NoneType"):
        request.getfixturevalue(name).collect([*texts[:3], None], batch_size=2)


@ALL_TEXT
def test_a_model_that_answers_nan_is_an_error_naming_the_sample(name, request, texts):
    loader = request.getfixturevalue(name)

    def poison(layer, inputs, output):
        return output.masked_fill((inputs[0] == 7).unsqueeze(-1), torch.nan)  # "dog", first seen in sample 1

    for layer in loader.model.modules():
        if isinstance(layer, torch.nn.Embedding) and layer.num_embeddings == 20:
            layer.register_forward_hook(poison)
    with pytest.raises(DataError, match="of sample 1 must be finite"):
        loader.collect(texts, batch_size=1)


@pytest.mark.parametrize("name", ["masked", "denoising"])
def test_the_seed_decides_the_masks_and_more_draws_average_them(name, request, texts):
    loader = request.getfixturevalue(name)
    by_seed = {}
    for seed in (0, 1):
        loader.seed = seed
        by_seed[seed] = loader.collect(texts).losses
    assert not np.allclose(by_seed[0], by_seed[1])
    loader.seed, loader.draws = 0, 1
    assert not np.allclose(loader.collect(texts).losses, by_seed[0])


@pytest.mark.parametrize("name", ["masked", "denoising"])
def test_a_text_without_a_token_to_hide_is_an_error(name, request):
    with pytest.raises(DataError, match="text of sample 1 has no token"):
        request.getfixturevalue(name).collect(["cat", ""])


def test_masked_loss_is_the_cross_entropy_of_the_hidden_tokens(masked, texts):
    masked.draws = 1
    text = texts[3]
    row = masked.tokenizer(text)["input_ids"]
    hidden, labels = masked._masked(row, 0, 0)
    places = [place for place, label in enumerate(labels) if label != -100]
    assert len(places) == round(0.15 * (len(row) - 2))
    assert [hidden[place] for place in places] == [4] * len(places)
    assert all(hidden[place] == row[place] for place in range(len(row)) if place not in places)
    # transformers' own mean over the labelled tokens is the independent computation.
    own = masked.model.eval()(torch.tensor([hidden]), labels=torch.tensor([labels])).loss
    assert masked.collect([text]).losses[0] == pytest.approx(own.item(), rel=1e-5)


def test_the_embedding_is_that_of_the_unmasked_text(masked, texts):
    ids = torch.tensor([masked.tokenizer(texts[0])["input_ids"]])
    hidden = masked.model.eval()(ids, output_hidden_states=True).hidden_states[-1]
    np.testing.assert_allclose(masked.collect(texts[:1]).embeddings[0], hidden[0, 0].detach(), rtol=1e-5)
    masked.pooling = "mean"
    np.testing.assert_allclose(masked.collect(texts[:1]).embeddings[0], hidden[0].mean(0).detach(), rtol=1e-4)


def test_causal_loss_is_transformers_own(causal, texts):
    for text in texts:
        ids = torch.tensor([causal.tokenizer(text)["input_ids"]])
        own = causal.model.eval()(ids, labels=ids).loss.item()
        assert causal.collect([text]).losses[0] == pytest.approx(own, rel=1e-5)


def test_causal_loss_of_a_uniform_model_is_the_log_of_the_vocabulary(causal, texts):
    with torch.no_grad():
        causal.model.lm_head.weight.zero_()
    np.testing.assert_allclose(causal.collect(texts).losses, np.log(20), rtol=1e-6)


def test_causal_embedding_at_the_last_token_ignores_padding(causal, texts):
    causal.pooling = "last"
    alone = causal.collect([texts[2]]).embeddings[0]
    np.testing.assert_allclose(causal.collect(texts).embeddings[2], alone, rtol=1e-4, atol=1e-5)


def test_one_token_has_no_causal_loss(causal, bare_tokenizer):
    loader = CausalLM(causal.model, bare_tokenizer)
    with pytest.raises(DataError, match="sample 1 must have at least two tokens, got 1"):
        loader.collect(["cat sat", "cat"])
    with pytest.raises(DataError, match="sample 1 has no tokens"):
        loader.collect(["cat sat", ""])


def test_denoising_loss_is_transformers_own_on_the_corrupted_text(denoising, texts):
    denoising.draws = 1
    for text in texts:
        row = denoising.tokenizer(text)["input_ids"]
        ids, labels = torch.tensor([denoising.corrupted(row)]), torch.tensor([row])
        own = denoising.model.eval()(ids, labels=labels).loss.item()
        assert denoising.collect([text]).losses[0] == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9])
def test_infilling_hides_exactly_the_asked_share_and_leaves_one_mask_per_span(denoising, fraction, texts):
    denoising.noise_fraction = fraction
    row = denoising.tokenizer(texts[3])["input_ids"]
    for draw in range(20):
        noisy = denoising.corrupted(row, draw)
        masks = noisy.count(4)
        kept = [token for token in noisy if token != 4]
        assert len(row) - len(kept) == round(fraction * (len(row) - 2))
        assert 1 <= masks <= len(row) - len(kept)
        assert (noisy[0], noisy[-1]) == (row[0], row[-1])
        rest = iter(row)
        assert all(token in rest for token in kept), "what is kept keeps its order"


def test_single_token_noise_keeps_the_length(denoising, texts):
    denoising.mean_span = None
    row = denoising.tokenizer(texts[3])["input_ids"]
    noisy = denoising.corrupted(row)
    assert len(noisy) == len(row)
    assert noisy.count(4) == round(0.3 * (len(row) - 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"mask_fraction": 0.0}, "mask_fraction must lie between 0 and 1, got 0.0"),
        ({"mask_fraction": 1.5}, "mask_fraction must lie between 0 and 1, got 1.5"),
    ],
)
def test_settings_without_sense_are_refused(masked, settings, message):
    with pytest.raises(DataError, match=message):
        MaskedLM(masked.model, masked.tokenizer, **settings)


def test_a_saved_model_loads_from_its_directory_and_measures_the_same(masked, tmp_path, texts):
    masked.model.save_pretrained(tmp_path)
    masked.tokenizer.save_pretrained(tmp_path)
    again = MaskedLM.from_pretrained(tmp_path, draws=2).collect(texts)
    np.testing.assert_allclose(again.losses, masked.collect(texts).losses, rtol=1e-6)
    assert again.provenance["model"] == tmp_path.name, "a path of one machine has no place in a provenance"


def test_pickled_weights_are_not_read(masked, tmp_path):
    masked.model.save_pretrained(tmp_path)
    masked.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(masked.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(EncoderNotFoundError, match="safetensors"):
        MaskedLM.from_pretrained(tmp_path)


def test_a_hub_id_needs_a_revision():
    with pytest.raises(EncoderError, match="pass revision="):
        MaskedLM.from_pretrained("nobody/nothing")


@pytest.mark.parametrize("allow_download", [False, True])
def test_nothing_is_downloaded_when_offline_or_not_allowed(monkeypatch, allow_download):
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a loader opened a socket")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1" if allow_download else "0")
    hint = "HF_HUB_OFFLINE is set" if allow_download else "pass allow_download=True"
    with pytest.raises(EncoderNotFoundError, match=hint):
        MaskedLM.from_pretrained("nobody/nothing", revision="main", allow_download=allow_download)


def test_the_progress_bar_is_drawn_on_request_only(masked, capsys, texts):
    masked.collect(texts, progress=True)
    assert "masked_lm" in capsys.readouterr().err
    masked.collect(texts)
    assert capsys.readouterr().err == ""
