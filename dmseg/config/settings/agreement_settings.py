"""Settings of the comparison of raters."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AgreementSettings:
    """How raters are compared with the majority in Table 1.

    Attributes:
        disjoint: what a rater without any overlap counts, 0 or 1.
    """

    disjoint: float
