"""wandb online: the file of each run, and a process that sends it while it grows."""

import logging
import os
import subprocess
from collections.abc import Mapping

from dmseg.report.tracking.tracker import Report, RunMetadata
from dmseg.report.tracking.wandb_files import WandbFile, own_environment
from dmseg.report.tracking.wandb_sender import Sender, connection_fault, is_sent

log = logging.getLogger(__name__)

LATER = "runs are recorded on this machine; 'dmseg track tracker=online' sends them later"


class WandbOnline:
    """Records runs in wandb's files, and sends them as long as the server answers.

    When it stops answering, one warning is logged, and this process sends nothing more.

    Args:
        file: writes the files.
    """

    gave_up = False
    """Whether sending has failed in this process."""

    def __init__(self, file: WandbFile) -> None:
        self._file = file
        self._sender: Sender | None = None
        self.delivered = False

    def begin(self, metadata: RunMetadata) -> None:
        """Opens the file and starts to send it."""
        self.delivered = False
        self._file.begin(metadata)
        if WandbOnline.gave_up or self._file.folder is None:
            return
        if fault := connection_fault():
            give_up(fault)
            return
        try:
            with own_environment():
                self._sender = Sender(self._file.folder, dict(os.environ))
        except (OSError, subprocess.SubprocessError) as error:
            give_up(str(error))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the numbers of a step."""
        self._file.log(step, values)

    def show(self, report: Report) -> None:
        """Adds what is shown once."""
        self._file.show(report)

    def end(self, finished: bool) -> None:
        """Closes the file; waits for the rest to be sent as long as the server answers."""
        self._file.end(finished)
        sender, self._sender = self._sender, None
        if sender is None:
            return
        if WandbOnline.gave_up:
            sender.stop()
        elif fault := sender.finish():
            give_up(fault)
        elif self._file.folder is not None:
            self.delivered = is_sent(self._file.folder)


def give_up(fault: str) -> None:
    """Logs once why nothing is sent, and sends nothing more in this process."""
    if not WandbOnline.gave_up:
        log.warning("wandb: %s; %s", fault, LATER)
    WandbOnline.gave_up = True
