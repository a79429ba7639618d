"""Image, audio and self-distillation losses against independent computations."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import DataError
from probes.losses import HubertSurrogate, MaskedImage, ViewConsistency, Wav2Vec2Contrastive

torch = pytest.importorskip("torch", reason="the loss loaders need the torch extra")
transformers = pytest.importorskip("transformers", reason="the loss loaders need the torch extra")

VIT = {
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 3,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}
AUDIO = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (32, 32),
    "conv_kernel": (10, 4),
    "conv_stride": (5, 4),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.05,
    "layerdrop": 0.0,
    "initializer_range": 0.3,
}


@pytest.fixture
def images():
    return list(np.random.default_rng(1).normal(size=(5, 3, 16, 16)).astype(np.float32))


@pytest.fixture
def waves():
    rng = np.random.default_rng(2)
    return [rng.normal(size=n).astype(np.float32) for n in (800, 1200, 800, 640, 1200)]


def mae(**changes):
    decoder = {
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 32,
    }
    return MaskedImage(transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**VIT, **decoder, **changes)))


def wav2vec2():
    config = transformers.Wav2Vec2Config(
        **AUDIO,
        num_codevectors_per_group=8,
        num_codevector_groups=2,
        codevector_dim=16,
        proj_codevector_dim=16,
        num_negatives=5,
    )
    return Wav2Vec2Contrastive(transformers.Wav2Vec2ForPreTraining(config), negatives=5, span=3)


def hubert():
    return HubertSurrogate(transformers.HubertModel(transformers.HubertConfig(**AUDIO)))


def dino(**settings):
    return ViewConsistency(transformers.Dinov2Model(transformers.Dinov2Config(**VIT, drop_path_rate=0.0)), **settings)


def noisy_views(image, rng):
    return [image + rng.normal(size=image.shape).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize(
    ("build", "samples"),
    [(mae, "images"), (lambda: dino(views=noisy_views), "images"), (hubert, "waves"), (wav2vec2, "waves")],
    ids=["masked_image", "self_distillation", "hubert", "wav2vec2"],
)
def test_a_sample_measures_the_same_alone_in_a_batch_and_in_any_order(build, samples, request):
    loader, samples = build(), request.getfixturevalue(samples)
    together = loader.collect(samples, batch_size=5)
    assert together.embeddings.shape == (5, 32)
    for batch_size, order in ((1, [0, 1, 2, 3, 4]), (2, [4, 2, 0, 3, 1])):
        other = loader.collect([samples[place] for place in order], batch_size=batch_size)
        np.testing.assert_allclose(other.losses, together.losses[order], rtol=1e-4)
        np.testing.assert_allclose(other.embeddings, together.embeddings[order], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_masked_image_loss_averages_to_transformers_own_batch_loss(images, norm_pix_loss):
    loader = mae(norm_pix_loss=norm_pix_loss)
    loader.draws = 1
    pairs = loader.collect(images)
    from probes.losses.models import sample_rng

    noise = np.stack([sample_rng(0, 0, image.tobytes()).random(16, np.float32) for image in images])
    own = loader.model.eval()(torch.from_numpy(np.stack(images)), noise=torch.from_numpy(noise)).loss
    assert pairs.losses.mean() == pytest.approx(own.item(), rel=1e-5)


def test_masked_image_embedding_sees_every_patch_and_the_config_is_put_back(images):
    loader = mae()
    before = loader.collect(images).embeddings
    assert loader.model.config.mask_ratio == 0.75
    changed = images[0].copy()
    # Each patch in turn: a masked one could not change the embedding.
    for row in range(0, 16, 4):
        for column in range(0, 16, 4):
            touched = changed.copy()
            touched[:, row : row + 4, column : column + 4] += 3.0
            assert not np.allclose(loader.collect([touched]).embeddings[0], before[0], atol=1e-4)


def test_the_seed_decides_the_image_masks(images):
    loader = mae()
    first = loader.collect(images).losses
    loader.seed = 1
    assert not np.allclose(loader.collect(images).losses, first)


def test_hubert_surrogate_is_the_mean_absolute_hidden_state(waves):
    loader = hubert()
    pairs = loader.collect(waves)
    hidden = loader.model.eval()(torch.from_numpy(waves[1])[None]).last_hidden_state[0].detach().numpy()
    assert pairs.losses[1] == pytest.approx(np.abs(hidden).mean(), rel=1e-5)
    np.testing.assert_allclose(pairs.embeddings[1], hidden.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert "surrogate" in pairs.provenance["loss"]


def test_wav2vec2_loss_matches_transformers_own_for_the_same_mask_and_negatives(waves):
    from probes.losses.models import sample_rng

    loader = wav2vec2()
    loader.draws = 1
    wave = waves[1]
    frames = int(loader.model._get_feat_extract_output_lengths(wave.size))
    rng = sample_rng(0, 0, wave.tobytes())
    mask = loader.time_mask(frames, rng)
    masked = np.flatnonzero(mask)
    others = rng.integers(len(masked) - 1, size=(len(masked), 5))
    others += others >= np.arange(len(masked))[:, None]
    negatives = np.zeros((1, frames, 5), dtype=np.int64)
    negatives[0, masked] = masked[others]
    output = loader.model.eval()(
        torch.from_numpy(wave)[None],
        mask_time_indices=torch.from_numpy(mask)[None],
        sampled_negative_indices=torch.from_numpy(negatives),
    )
    own = output.contrastive_loss.item() / len(masked)
    assert loader.collect([wave]).losses[0] == pytest.approx(own, rel=1e-4)


def test_time_masks_cover_about_the_asked_share():
    loader = wav2vec2()
    rng = np.random.default_rng(0)
    share = np.mean([loader.time_mask(200, rng).mean() for _ in range(200)])
    # Spans overlap, so the share lies below mask_fraction = 0.5 by the chance of that.
    assert 0.35 < share < 0.5


def test_two_equal_views_agree_and_the_flip_matters(images):
    same = dino(views=lambda image, rng: (image, image)).collect(images)
    np.testing.assert_allclose(same.losses, 0.0, atol=1e-6)
    torch.manual_seed(0)
    loader = dino()
    flipped = loader.collect(images)
    assert (flipped.losses > 1e-3).all()

    def token(image):
        return loader.student.eval()(torch.from_numpy(image[None].copy())).last_hidden_state[0, 0].detach().numpy()

    one, two = token(images[0]), token(images[0][..., ::-1])
    expected = 1 - one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    assert flipped.losses[0] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(flipped.embeddings[0], one, rtol=1e-4, atol=1e-5)


def test_heads_give_the_cross_entropy_of_teacher_and_student(images):
    heads = (torch.nn.Linear(32, 7), torch.nn.Linear(32, 7))
    center = np.linspace(-1, 1, 7, dtype=np.float32)
    teacher = transformers.Dinov2Model(transformers.Dinov2Config(**VIT)).eval()
    loader = dino(teacher=teacher, heads=heads, center=center, teacher_temperature=0.5, student_temperature=0.7)
    losses = loader.collect(images).losses

    def logits(model, head, image):
        hidden = model.eval()(torch.from_numpy(image[None].copy())).last_hidden_state[:, 0]
        return head(hidden)[0].detach().numpy().astype(np.float64)

    def cross_entropy(t, s):
        p = np.exp((t - center) / 0.5)
        return -np.sum(p / p.sum() * (s / 0.7 - np.log(np.exp(s / 0.7).sum())))

    a, b = images[0], images[0][..., ::-1]
    expected = np.mean(
        [
            cross_entropy(logits(teacher, heads[1], one), logits(loader.student, heads[0], two))
            for one, two in ((a, b), (b, a))
        ]
    )
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    assert not np.allclose(losses, dino(teacher=teacher).collect(images).losses)


def test_one_view_is_not_enough(images):
    with pytest.raises(DataError, match="at least two"):
        dino(views=lambda image, rng: (image,)).collect(images)


@pytest.mark.parametrize("build", [mae, dino])
def test_images_of_several_shapes_need_a_processor(build, images):
    with pytest.raises(DataError, match="one shape"):
        build().collect([images[0], images[1][:, :8]])


@pytest.mark.parametrize("build", [hubert, wav2vec2])
@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros((2, 800), np.float32), r"sample 1 must be a mono waveform"),
        (np.zeros(800, np.int16), r"sample 1 must be a mono waveform .* dtype int16"),
        (np.full(800, np.nan, np.float32), "wave of sample 1 must be finite"),
        (np.zeros(8, np.float32), "wave of sample 1 is too short"),
    ],
)
def test_what_is_no_waveform_is_named(build, waves, wave, message):
    with pytest.raises(DataError, match=message):
        build().collect([waves[0], wave])


def test_nan_pixels_are_named(images):
    images[3][0, 0, 0] = np.nan
    with pytest.raises(DataError, match="of sample 3 must be finite"):
        mae().collect(images, batch_size=2)
