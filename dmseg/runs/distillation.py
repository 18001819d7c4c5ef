"""Distillation: the objective of a student, with its teacher's network and calibration from the store."""

import logging

import torch
from torch import nn

from dmseg.calibration.temperature import RANGE
from dmseg.config.settings import DistillSettings
from dmseg.data.prepared import PreparedTask
from dmseg.data.training_slices import load_training
from dmseg.errors import UserError
from dmseg.runs.network import stored_network
from dmseg.runs.plan import PlannedRun
from dmseg.runs.store import RunStore
from dmseg.training.distill import DistillObjective, Teacher, pixel_kernel, teacher_temperature
from dmseg.training.random_streams import Streams

log = logging.getLogger(__name__)


def distill_objective(
    run: PlannedRun, distill: DistillSettings, prepared: PreparedTask, device: torch.device, streams: Streams
) -> DistillObjective:
    """The objective of a distilled run; reads only the teacher's weights and training cases.

    Args:
        run: the student.
        distill: its distillation settings.
        prepared: the store.
        device: where training runs.
        streams: random streams for the objective.

    Raises:
        UserError: if the teacher is not finished, no loss term is left, or an option does not fit.
    """
    if run.teacher is None:
        return DistillObjective(distill, run.settings.loss, None)
    calibrator, teacher = run.teacher, run.teacher.teacher or run.teacher
    fitted = None
    if distill.calibrate is not None:
        cases = calibrator.split.validation if distill.calibrate == "inner" else teacher.split.train
        data = load_training(prepared, cases, run.fusion).to(device)
        network = trained_network(calibrator, prepared, device)
        fitted = teacher_temperature(network, data, run.settings.evaluate.batch_size)
        log.info("temperature of the teacher, fitted on %d cases: %.3f", len(cases), fitted)
        if not 1.01 * RANGE[0] < fitted < 0.99 * RANGE[1]:
            why = "is no better than chance" if fitted > 1 else "makes no mistake"
            log.warning("this is an end of the range of temperatures: the teacher %s on these cases", why)
    network = trained_network(teacher, prepared, device)
    kernel = pixel_kernel(distill.kde)
    taught_by = Teacher(network, distill.temperature, kernel, streams("KDE keys"), fitted)
    return DistillObjective(distill, run.settings.loss, taught_by)


def trained_network(run: PlannedRun, prepared: PreparedTask, device: torch.device) -> nn.Module:
    """The final network of a finished run.

    Raises:
        UserError: if it is not finished, or damaged.
    """
    store = RunStore(run.results)
    if not store.is_done(run.run_id):
        raise UserError(f"the teacher {run.title} ({run.run_id}) is not done; train it first")
    return stored_network(run, prepared, store.load_weights(run.run_id), device)
