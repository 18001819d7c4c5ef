"""What trackers show for a run: name, group, tags and configuration; at its end scores, curves and a few cases."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.metrics.curves import mean_level_dice, reliability
from dmseg.metrics.levels import BDICE_LEVELS
from dmseg.metrics.named import COUNT_METRICS, count_scores
from dmseg.metrics.stored_counts import StoredCounts
from dmseg.report.charts import COLOURS
from dmseg.report.tracking.tracker import Bytes, Curves, Layer, Overlay, Report, Rows, RunMetadata
from dmseg.runs.identity import PLAIN
from dmseg.runs.records import mean_scores
from dmseg.runs.shareable import shareable_settings
from dmseg.runs.store import RunStore
from dmseg.training.pictures import Picture

RATER_COLOURS = np.array([tuple(bytes.fromhex(colour[1:])) for colour in COLOURS[:6]])
"""Red, green and blue of each rater."""
PANEL_EDGE = 192
"""Pixels of the longer edge of one picture in a panel."""
GAP = 4
LEVELS = {level + 1: f"at least {value:g}" for level, value in enumerate(BDICE_LEVELS)}
ERRORS = {1: "missed", 2: "false alarm"}
FIRST_TABLE = "cases"
NOT_SHOWN = ("paths", "launcher", "wandb", "tracker", "workers", "checkpoint", "agreement")
"""Settings that do not affect a run's numbers."""
LONGEST = 128
"""Maximum length of a name or group in wandb."""
LONGEST_TAG = 64
DOT = " · "


def run_report(store: RunStore, run_id: str, evaluation_id: str | None, images: bool) -> Report:
    """Collects what is shown for a finished run: all of one evaluation, and the means of the others.

    Args:
        store: the run store.
        run_id: id of the run.
        evaluation_id: id of the evaluation to show; None for the one made right after training.
        images: whether cases may be shown.

    Raises:
        UserError: if a file of the run is damaged.
    """
    stored = store.evaluations(run_id)
    evaluation_id = evaluation_id or next(name for name, place in stored.items() if place == store.folder(run_id))
    cases = store.read_cases(run_id, evaluation_id)
    counts = store.read_counts(run_id, evaluation_id)
    pictures = store.read_pack(run_id, evaluation_id) if images else None
    if counts is not None:
        requested = store.read_json(run_id, "config.json")["settings"]["evaluate"].get("metrics", [])
        names = [name for name in requested if name in COUNT_METRICS]
        cases = cases.assign(**count_scores(counts, cases["case"], names))
    rows = cases.sort_values("dice", na_position="first").astype(object).where(cases.notna(), None)
    scores = {f"validation/{name}": value for name, value in mean_scores(cases).items()}
    for other in sorted(set(stored) - {evaluation_id}):
        means = mean_scores(store.read_cases(run_id, other))
        scores |= {f"evaluation {other[:4]}/{name}": value for name, value in means.items()}
    return Report(
        scores={**scores, "validation/cases": len(cases)},
        tables={FIRST_TABLE: Rows([str(name) for name in rows.columns], rows.values.tolist())},
        curves={} if counts is None else run_curves(counts.values()),
        overlays=[overlay(picture) for picture in pictures or ()],
    )


def run_curves(counts: Iterable[StoredCounts]) -> Mapping[str, Curves]:
    """Reliability diagram and Dice by threshold, over all cases of an evaluation."""
    found = list(counts)
    curve, dice = reliability(found), mean_level_dice(found)
    if curve is None or dice is None:
        return {}
    filled = curve.pixels > 0
    points = curve.probability[filled].tolist(), curve.frequency[filled].tolist()
    return {
        "reliability": Curves(
            "Reliability: share of foreground against predicted probability",
            "predicted probability",
            {"share of foreground": points, "perfect": ((0.0, 1.0), (0.0, 1.0))},
        ),
        "dice_over_thresholds": Curves(
            "Dice by threshold, whose mean is BDice", "threshold", {"mean Dice": (list(BDICE_LEVELS), dice.tolist())}
        ),
    }


def overlay(picture: Picture) -> Overlay:
    """The layers of a case, and its panel."""
    reference, probability = ((layer / 255).astype(np.float32) for layer in (picture.reference, picture.probability))
    error = error_map(reference, probability)
    contours = rater_contours(picture.raters)
    dice = "" if np.isnan(picture.dice) else f", Dice {100 * picture.dice:.1f} %"
    place = f", slice {picture.slice + 1} of {picture.n_slices}" if picture.n_slices > 1 else ""
    names = {index + 1: f"rater {index + 1}" for index in range(len(picture.raters))}
    return Overlay(
        picture.case,
        f"{picture.case} ({', '.join(picture.roles)}){dice}{place}",
        picture.image,
        {
            "raters": Layer(contours, names),
            "label": Layer(_level(reference), LEVELS),
            "probability": Layer(_level(probability), LEVELS),
            "error": Layer(error, ERRORS),
        },
        panel(picture, contours, error),
    )


def error_map(reference: npt.NDArray[np.float32], probability: npt.NDArray[np.float32]) -> Bytes:
    """Pixels where label and prediction, both thresholded at 0.5, differ: 1 missed, 2 false alarm."""
    label, predicted = reference >= 0.5, probability >= 0.5
    return (label & ~predicted) + 2 * (predicted & ~label).astype(np.uint8)


def rater_contours(raters: npt.NDArray[Any]) -> Bytes:
    """Contours of the raters' masks (R, H, W): the number of the rater, from 1; later raters are drawn over earlier."""
    drawn = np.zeros(raters.shape[1:], np.uint8)
    for index, mask in enumerate(raters != 0):
        drawn[contour(mask)] = min(index + 1, 255)
    return drawn


def contour(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of a mask (H, W) with a neighbour, above, below, left or right, outside of it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def panel(picture: Picture, contours: Bytes, error: Bytes) -> Bytes:
    """Image, raters' contours, reference label, probability and error side by side, (h, w, 3)."""
    grey = _rgb(picture.image)
    outlined, wrong = grey.copy(), grey.copy()
    drawn = contours > 0
    outlined[drawn] = RATER_COLOURS[(contours[drawn] - 1) % len(RATER_COLOURS)]
    wrong[error == 1], wrong[error == 2] = RATER_COLOURS[0], RATER_COLOURS[1]
    parts = [grey, outlined, _rgb(picture.reference), _rgb(picture.probability), wrong]
    factor = max(1, PANEL_EDGE // max(picture.image.shape))
    large = [part.repeat(factor, axis=0).repeat(factor, axis=1) for part in parts]
    gap = np.full((large[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([item for part in large for item in (part, gap)][:-1], axis=1)


def _rgb(grey: Bytes) -> Bytes:
    return np.repeat(grey[..., None], 3, axis=2)


def _level(values: npt.NDArray[np.float32]) -> Bytes:
    """Number of thresholds that each value reaches."""
    return sum((values >= np.float32(level)).astype(np.uint8) for level in BDICE_LEVELS)  # type: ignore[return-value]


def run_metadata(
    run_id: str,
    experiment_id: str,
    settings: Mapping[str, Any],
    *,
    phantom: bool,
    job_type: str = "train",
    tables: Sequence[str] = (),
    tags: Sequence[str] = (),
    notes: str | None = None,
) -> RunMetadata:
    """Metadata of a run.

    Args:
        run_id: its id.
        experiment_id: the id that its folds share.
        settings: its settings as plain containers (`dataclasses.asdict`).
        phantom: whether its data are generated.
        job_type: ``train`` or ``teacher``.
        tables: names of the tables that it is trained for.
        tags: further tags.
        notes: the user's notes.
    """
    words = experiment_words(settings)
    seed = [f"seed {settings['seed']}"] if settings["seed"] else []
    name = DOT.join([settings["task"], *words, f"fold {settings['fold']}", *seed])
    data = settings["data"]["name"]
    group = DOT.join([f"{data}/{settings['task']}", *words, settings["model"]["name"], experiment_id[:4]])
    own = [data, settings["labels"]["name"], settings["method"]["name"], settings["profile"], settings["protocol"]]
    own += [*(["phantom"] if phantom else []), *(f"table {table}" for table in tables), *tags]
    ids = {"run_id": run_id, "experiment_id": experiment_id}
    return RunMetadata(
        run_id,
        cut(name),
        cut(group),
        job_type,
        tuple(dict.fromkeys(cut(tag, LONGEST_TAG) for tag in own if tag)),
        notes,
        {**ids, "title": name, "phantom": phantom, **flat_settings(settings)},
    )


def experiment_words(settings: Mapping[str, Any]) -> list[str]:
    """Method (unless plain), labels, distillation and loss of a run, as far as they have an effect."""
    method = settings["method"]
    unused = method.get("unused") or []
    words = [] if method["target"] == PLAIN else [method["name"]]
    labels = "" if "labels" in unused else settings["labels"]["name"]
    taught = f"+{settings['distill']['name']}" if settings.get("distill") else ""
    loss = "" if "loss" in unused else settings["loss"]["name"].removeprefix("ce_")
    return [*words, *filter(None, [f"{labels}{taught}", loss])]


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with dotted keys, without paths, accounts and what does not affect the numbers."""
    return dict(
        _flat({key: value for key, value in shareable_settings(dict(settings)).items() if key not in NOT_SHOWN})
    )


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif value != {}:
            yield f"{prefix}{key}", value


def cut(text: str, longest: int = LONGEST) -> str:
    """Shortens a text to a maximum length."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
