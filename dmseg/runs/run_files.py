"""The files of a finished training and its scores: written here, published and read by `dmseg.runs.store`.

``<results>/runs/<run id>/``

- ``config.json``: identity and full settings; ``manifest.json``: versions, hardware, duration
- ``history.csv``: losses and learning rate of each epoch; ``weights.safetensors``: the final network
- ``cases.csv``, ``evaluation.json``: scores of the validation cases, and the id of the evaluation that gave them
- ``counts.npz``: counts of these cases, from which further metrics are computed
- ``pack.npz``: pictures of a few of these cases; absent with ``evaluate.pack=false`` and in exports
- ``evaluations/<id>/``: the same four files under other evaluation settings; and those of the first evaluation again,
  if its counts or pictures were added later
- ``predictions/<case>.npy``: foreground probabilities, if requested
- ``DONE``: checksums of all other files, written last
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmseg.runs.records import OPTIONAL_SCORES, SCORES
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
    write_further(folder, counts, pictures)


def write_further(folder: Path, counts: "Mapping[str, StoredCounts] | None", pictures: "Sequence[Picture]") -> None:
    """Writes counts and pictures, if there are any."""
    if counts:
        from dmseg.runs.counts_file import write_counts

        write_counts(folder / "counts.npz", counts)
    if pictures:
        from dmseg.runs.pack_file import write_pack

        write_pack(folder / "pack.npz", pictures)


def mean_scores(cases: "pd.DataFrame") -> dict[str, float]:
    """Mean of each score over the cases that have a value; NaN if none has."""
    return {name: float(cases[name].mean()) for name in (*SCORES, *OPTIONAL_SCORES) if name in cases}


def save_weights(path: Path, model: "torch.nn.Module") -> None:
    """Writes a network's final weights as float32 safetensors."""
    from safetensors.torch import save

    path.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}))
