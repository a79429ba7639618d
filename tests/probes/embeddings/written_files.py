"""Write embedding files of every kind that `score_file` reads, for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason="scoring writes parquet, which needs the train extra")
pq = pytest.importorskip("pyarrow.parquet", reason="scoring writes parquet, which needs the train extra")

X = np.random.default_rng(0).normal(size=(103, 6)).astype(np.float32)
KINDS = ["npy", "npz", "npz:deflated", "safetensors", "safetensors:F16", "safetensors:BF16"]
KINDS += ["parquet:fixed", "parquet:list", "parquet:f64"]


def write(folder: Path, kind: str, values: np.ndarray = X) -> Path:
    ending, _, detail = kind.partition(":")
    path = folder / f"embeddings.{ending}"
    if ending == "npy":
        np.save(path, values)
    elif ending == "npz":
        (np.savez_compressed if detail else np.savez)(path, ids=np.arange(len(values)), embedding=values)
    elif ending == "safetensors":
        import torch
        from safetensors.torch import save_file

        dtype = {"": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[detail]
        save_file({"other": torch.zeros(3), "embedding": torch.from_numpy(values).to(dtype)}, path)
    else:
        flat = pa.array(values.ravel(), pa.float64() if detail == "f64" else pa.float32())
        lists = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        if detail == "list":
            lists = lists.cast(pa.list_(pa.float32()))
        table = pa.table({"id": np.arange(len(values)).astype(str), "embedding": lists})
        pq.write_table(table, path, row_group_size=25)
    return path


def total(features: np.ndarray) -> dict[str, np.ndarray]:
    return {"total": features.astype(np.float64).sum(axis=1)}
