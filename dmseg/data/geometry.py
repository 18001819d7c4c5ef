"""Decides whether the slices of a store are scored one by one or as volumes, and with which spacing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dmseg.data.prepared import PreparedTask
from dmseg.errors import UserError, some
from dmseg.metrics.named import IN_MM, OF_VOLUMES
from dmseg.metrics.surface import require_library

AGAIN = "run 'dmseg prepare' with the same data settings once more, which adds it and keeps all ids"


@dataclass(frozen=True)
class Geometry:
    """How the cases of a store lie in space, the same rule for all of them.

    Attributes:
        volumes: whether the slices of each case form one volume.
        spacing: distance of rows and of columns, and of slices if they are scored as volumes, in mm, by case; None if
            no metric needs it.
    """

    volumes: bool = False
    spacing: Mapping[str, tuple[float, ...]] | None = None


def find_geometry(prepared: PreparedTask, metrics: Sequence[str], stated: Sequence[float] | None) -> Geometry:
    """Finds what metrics of surfaces and lesions need to know about a store.

    Slices are scored as volumes if those of every case are contiguous and some case has more than one; for a metric in
    mm the distance of slices must also be known in every case.

    Args:
        prepared: the store.
        metrics: names of the metrics.
        stated: spacing of all prepared slices in mm, (row, column) or (row, column, slice), as set by the user; None to
            use the spacing in the files.

    Raises:
        UserError: if a metric needs a spacing or position that the store lacks, or a library that is not installed.
    """
    needing, in_mm = ([name for name in metrics if name in group] for group in (OF_VOLUMES, IN_MM))
    if not needing:
        return Geometry()
    if in_mm:
        require_library()
    several = any(case.n_slices > 1 for case in prepared.cases)
    slice_wise = in_mm == needing and stated is not None and len(stated) == 2
    if several and not prepared.has_geometry and not slice_wise:
        stating = "; or set evaluate.spacing=[row,column] to score slice by slice" if in_mm == needing else ""
        raise UserError(
            f"evaluate.metrics names {needing[0]}, but the store {prepared.folder} was prepared by an earlier version, "
            f"without the position of its slices; {AGAIN}{stating}"
        )
    volumes = several and all(case.contiguous for case in prepared.cases)
    if not in_mm:
        return Geometry(volumes)
    known = {case.case: case.spacing if stated is None else tuple(map(float, stated)) for case in prepared.cases}
    metric = in_mm[0]
    lacking = [case for case, spacing in known.items() if spacing is None]
    differing = [case.case for case in prepared.cases if stated is None and case.sizes_differ]
    if differing:
        raise UserError(
            f"evaluate.metrics names {metric}, which is in mm, but in {len(differing)} of {len(known)} cases slices "
            f"differ in size, and so in spacing once they are resized ({some(differing)}); pad or crop the slices of a "
            f"case to one size in the adapter, or leave {metric} out of evaluate.metrics"
        )
    if lacking:
        why = f"is in mm, but the spacing of {len(lacking)} of {len(known)} cases is unknown ({some(lacking)})"
        size = prepared.manifest["size"]
        remedy = (
            f"set evaluate.spacing=[row,column], the mm between rows and between columns of {size} x {size} pixels, or "
            f"leave {metric} out of evaluate.metrics"
        )
        if not prepared.has_geometry:
            why = f"is in mm, but the store {prepared.folder} was prepared by an earlier version, without the spacing"
            remedy = f"{AGAIN}; or {remedy}"
        raise UserError(f"evaluate.metrics names {metric}, which {why}; {remedy}")
    found = {case: spacing for case, spacing in known.items() if spacing is not None}
    deep = volumes and all(len(spacing) == 3 for spacing in found.values())
    return Geometry(volumes, {case: spacing if deep else spacing[:2] for case, spacing in found.items()})
