"""The scores in tables: titles, units and explanations."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """How tables show one score.

    Attributes:
        title: printed title.
        unit: unit in CSV files: ``percent``, ``count``, or the range of a number without a unit.
        factor: factor from the stored to the printed number.
        digits: number of decimals.
        lower_is_better: whether smaller values are better.
        note: explanation under the table; empty for none.
        absolute: whether the score counts by its absolute value, as a bias does: the column whose mean is closer to 0
            is better. `lower_is_better` must be set as well.
    """

    title: str
    unit: str = "percent"
    factor: float = 100.0
    digits: int = 2
    lower_is_better: bool = False
    note: str = ""
    absolute: bool = False

    @property
    def heading(self) -> str:
        """Title with the unit."""
        return f"{self.title} (%)" if self.unit == "percent" else self.title

    def shown(self, value: float) -> str:
        """A number as it is printed."""
        return f"{value:.{self.digits}f}"


SCORES = {
    "dice": Score("Dice", note="Dice is against the majority vote."),
    "bdice": Score("BDice", note="BDice is the mean over the levels 0.1 to 0.9 against the reference below."),
    "ece": Score(
        "ECE",
        lower_is_better=True,
        note="ECE is against the majority vote: top label, equal bins, all pixels of a case, then mean over cases.",
    ),
    "ged": Score(
        "GED",
        unit="0 to 2",
        factor=1.0,
        digits=3,
        lower_is_better=True,
        note="GED is the squared generalised energy distance of a method's samples (docs/explanation/methods.md) to "
        "the raters' own annotations, d = 1 - IoU: a number between 0 and 2, not a percentage; lower is better.",
    ),
    "raters": Score("# Raters", unit="count", factor=1.0, digits=0),
}
