"""The scores in tables: titles, units and explanations."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """How tables show one score.

    Attributes:
        title: printed title.
        unit: unit in CSV files: ``percent``, ``count``, ``mm``, or the range of a number without a unit.
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
        unit = {"percent": "%", "mm": "mm"}.get(self.unit)
        return self.title if unit is None else f"{self.title} ({unit})"

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
    "nsd": Score(
        "NSD",
        note="NSD is the share of the surfaces of prediction and majority vote that lie within evaluate.tolerance of "
        "each other (docs/explanation/surface-metrics.md).",
    ),
    "hd95": Score(
        "HD95",
        unit="mm",
        factor=1.0,
        lower_is_better=True,
        note="HD95 is the 95th percentile of the Hausdorff distance to the majority vote, in mm; where only one mask "
        "is empty, it is the diagonal of the slice or volume (docs/explanation/surface-metrics.md).",
    ),
    "lesion_f1": Score(
        "Lesion F1",
        note="Lesion F1 counts connected components; one pixel of overlap makes a lesion found.",
    ),
    "ece_classwise": Score(
        "Class-wise ECE",
        lower_is_better=True,
        note="The class-wise ECE is the mean of the ECEs of foreground and background probability.",
    ),
    "ace": Score(
        "ACE",
        lower_is_better=True,
        note="ACE is the calibration error of the foreground probability over bins of equal mass of each case.",
    ),
    "mce": Score("MCE", lower_is_better=True, note="MCE is the largest calibration gap of a bin of the ECE."),
    "brier": Score(
        "Brier",
        unit="0 to 1",
        factor=1.0,
        digits=4,
        lower_is_better=True,
        note="Brier is the mean of (p - y)^2 over all pixels of a case, y the majority vote.",
    ),
    "nll": Score(
        "NLL",
        unit="nats",
        factor=1.0,
        digits=4,
        lower_is_better=True,
        note="NLL is the mean of -log of the probability of the majority's class over all pixels of a case.",
    ),
    "ece_boundary": Score(
        "Boundary ECE",
        lower_is_better=True,
        note="The boundary ECE is the ECE over the pixels near a contour of the majority vote (evaluate.boundary).",
    ),
    "ece_raters": Score(
        "ECE (raters)", lower_is_better=True, note="ECE (raters) is the mean of the ECEs against each rater's own mask."
    ),
    "volume_bias": Score(
        "Volume bias",
        lower_is_better=True,
        absolute=True,
        note="The volume bias is (sum of the probabilities - mean of the raters' volumes) / that mean; the "
        "column whose mean is closer to 0 is better.",
    ),
    "volume_crps": Score(
        "Volume CRPS",
        lower_is_better=True,
        note="The volume CRPS compares the sum of the probabilities with the raters' volumes, relative to their mean.",
    ),
    "dice_raters": Score("Dice (raters)", note="Dice (raters) is the mean Dice with each rater's own mask."),
    "dice_slices": Score("Dice (slices)", note="Dice (slices) is the mean over the slices of a case."),
    "dice_other_ties": Score(
        "Dice (other ties)", note="Dice (other ties) is against the majority vote under the other rule for ties."
    ),
    "agreement_dice": Score(
        "Raters' Dice", note="Raters' Dice is the mean over pairs of raters, the same for all methods."
    ),
    "agreement_majority": Score(
        "Raters' Dice (majority)", note="Raters' Dice (majority) is the mean Dice of a rater with the majority vote."
    ),
    "agreement_kappa": Score(
        "Fleiss' kappa",
        unit="-1 to 1",
        factor=1.0,
        digits=3,
        note="Fleiss' kappa is of the raters, over the pixels of a case, the same for all methods.",
    ),
    "raters": Score("# Raters", unit="count", factor=1.0, digits=0),
}
