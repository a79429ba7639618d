"""Show five uses of a predicted loss on scikit-learn's digits.

Run it by `python examples/selection.py`. The "loss" is the squared error of a small linear reconstruction. It is
measured on 600 images only; a probe predicts it for the others from their embedding. Needs the `train` extra.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from probes.embeddings import selection
from probes.regression.ridge import RidgeFitter


def main() -> None:
    """Fit a probe on a few measured losses, then choose by its predictions."""
    digits = load_digits()
    images = digits.data / 16.0
    images[:9] = np.random.default_rng(0).random((9, 64))  # nine broken scans
    centred = images - images.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    embedding = np.column_stack([centred @ axes[:32].T, np.abs(centred @ axes[:32].T)])
    measured = np.random.default_rng(1).permutation(len(images))[:600]
    error = ((centred[measured] - centred[measured] @ axes[:12].T @ axes[:12]) ** 2).sum(axis=1)
    probe = RidgeFitter(embedding.shape[1]).update(embedding[measured], error).solve().probe
    loss = probe.predict(embedding)[:, 0]

    # Curation: leave out what is trivial and what is hopeless.
    keep = selection.keep_between(loss, drop_easiest=0.2, drop_hardest=0.05)
    print(f"curation: {keep.sum()} of {keep.size} images kept, mean predicted loss {loss[keep].mean():.3f}")

    # A test set that shows every difficulty equally often.
    balanced = selection.stratified(loss, 100, strata=10)
    easiest, hardest = loss[balanced].min(), loss[balanced].max()
    print(f"stratified: 100 images, predicted loss from {easiest:.3f} to {hardest:.3f}")

    # Quality: what no ordinary image looks like.
    flagged = np.flatnonzero(selection.suspicious(loss, deviations=3.5))
    print(f"quality: {flagged.size} images flagged, {np.sum(flagged < 9)} of the 9 broken ones among them")

    # Labelling: where a label teaches most, weighted by what a better prediction is worth.
    rest = np.setdiff1d(np.arange(len(images)), measured)
    chosen = rest[
        selection.next_to_label(embedding[rest], 20, gain=np.clip(loss[rest], 0, None), labelled=embedding[measured])
    ]
    print(f"labelling: next 20 images cover the digits {sorted(set(digits.target[chosen].tolist()))}")

    # Two dates: the same places later, a tenth of the first hundred disturbed.
    later = embedding + 0.01 * np.random.default_rng(2).normal(size=embedding.shape)
    later[:100:10] += 0.8
    changed = selection.change(loss, probe.predict(later)[:, 0], deviations=3.5)
    found = changed.flagged[:100:10].sum()
    print(f"change: {changed.flagged.sum()} places flagged, {found} of the 10 disturbed")


if __name__ == "__main__":
    main()
