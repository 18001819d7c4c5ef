"""Keys of Hydra's own configuration. They cannot be set, as they would have no effect or run code."""

from dmseg.errors import UserError

_ADVICE = {
    "launcher": "say where runs are trained with workers=4 or launcher=slurm",
    "sweeper": "write the values of each key (labels=majority,uniform), or use a wandb agent (docs/how-to/sweeps.md)",
    "sweep": "paths.results=FOLDER is where runs go, and name=NAME names the table of a sweep",
    "run": "paths.results=FOLDER is where runs go",
}


def refuse_hydra(text: str) -> None:
    """Refuses an override of a key or a package of Hydra's own, judging by the text alone.

    Raises:
        UserError: if it is such an override.
    """
    for name in text.lstrip("+~").partition("=")[0].split("@"):
        first, _, rest = name.strip("/").replace("/", ".").partition(".")
        if first == "hydra":
            advice = _ADVICE.get(rest.partition(".")[0], "leave it out")
            raise UserError(f"'{text}': dmseg uses Hydra to read settings only; {advice}")
