"""The card of a run: its name, group and tags in words, and its configuration with dotted keys."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dmseg.report.tracking.contents import Card
from dmseg.runs.identity import PLAIN
from dmseg.runs.shareable import shareable_settings

NOT_SHOWN = ("paths", "launcher", "wandb", "tracker", "workers", "checkpoint", "agreement")
"""Settings that do not affect a run's numbers."""
LONGEST = 128
"""Maximum length of a name or group in wandb."""
LONGEST_TAG = 64
DOT = " · "


def run_card(
    run_id: str,
    experiment_id: str,
    settings: Mapping[str, Any],
    *,
    phantom: bool,
    job_type: str = "train",
    tables: Sequence[str] = (),
    tags: Sequence[str] = (),
    notes: str | None = None,
) -> Card:
    """Describes a run.

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
    return Card(
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
