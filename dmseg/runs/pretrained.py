"""Pretrained weights of a run: recorded with it, and checked to be the same in all runs of a store."""

from typing import Any

from dmseg.errors import UserError
from dmseg.models.weights import HUB, describe_weights
from dmseg.runs.plan import PlannedRun
from dmseg.runs.seal import DamagedError
from dmseg.runs.store import RunStore


def pretrained_facts(run: PlannedRun) -> dict[str, Any]:
    """The manifest's entry for the pretrained weights that a network was just built with; empty for none.

    The run id only contains the word ``imagenet``, so weights that changed on the hub would share one name.

    Raises:
        UserError: if the weights are not the pinned ones, or another run of the store was trained from different
            ImageNet weights of the same encoder.
    """
    model = run.settings.model
    described = describe_weights(model.encoder, model.weights, model.weights_sha256)
    if described is None:
        return {}
    store = RunStore(run.results)
    for run_id in store.run_ids() if model.weights == HUB and described["sha256"] is not None else ():
        try:
            other = store.read_json(run_id, "manifest.json").get("pretrained")
        except DamagedError:
            continue
        if not isinstance(other, dict) or other.get("source") != described["source"] or other.get("sha256") is None:
            continue
        if other["sha256"] != described["sha256"]:
            raise UserError(
                f"the ImageNet weights of {described['encoder']} here have the SHA-256 {described['sha256']}, but run "
                f"{run_id} in {store.runs} was trained from {other['sha256']}\n"
                "use the same file for all runs (model.weights=FILE), another results folder, or pin one with "
                "model.weights_sha256"
            )
    return {"pretrained": described}
