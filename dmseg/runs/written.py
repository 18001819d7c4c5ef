"""Files of a finished run: weights, scores, counts and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmseg.runs.seal import write_json

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dmseg.metrics.stored_counts import StoredCounts
    from dmseg.training.pictures import Picture


def write_scores(
    folder: Path,
    cases: "pd.DataFrame",
    evaluation_id: str,
    evaluation: dict[str, Any],
    counts: "Mapping[str, StoredCounts] | None" = None,
    pictures: "Sequence[Picture]" = (),
) -> None:
    """Writes ``cases.csv`` and ``evaluation.json``, numbers in full precision, and counts and pictures if given."""
    write_json(folder / "evaluation.json", {"id": evaluation_id, "settings": evaluation})
    cases.to_csv(folder / "cases.csv", index=False)
    if counts:
        from dmseg.runs.counts_file import write_counts

        write_counts(folder / "counts.npz", counts)
    if pictures:
        from dmseg.runs.pack_file import write_pack

        write_pack(folder / "pack.npz", pictures)


def save_weights(path: Path, model: "torch.nn.Module") -> None:
    """Writes a network's final weights as float32 safetensors."""
    from safetensors.torch import save

    path.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}))


def read_weights(folder: Path) -> "dict[str, torch.Tensor]":
    """Reads a run's final weights.

    Raises:
        OSError: if the file is missing.
        ValueError: if it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / "weights.safetensors")
    except SafetensorError as error:
        raise ValueError(str(error)) from None
