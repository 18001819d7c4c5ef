"""A method: its network, its objective, its optimiser and its predictions. The base class is plain training.

Methods that distinguish raters have base classes of their own.
"""

from collections.abc import Sequence

from torch import nn, optim

from dmseg.config.settings import LossSettings, ModelSettings, OptimSettings
from dmseg.data.case import Task
from dmseg.models.build import build_model
from dmseg.training.objective import LabelObjective, Objective, build_loss
from dmseg.training.optim import build_optimizer, build_schedule
from dmseg.training.predictor import Predictor
from dmseg.training.random_streams import Streams


class Method:
    """Plain training: one network, the configured loss of the fused label, SGD, and the softmax as prediction.

    Attributes:
        uses_raters: whether batches must carry each rater's own annotation.
        trained_raters: positions of the raters who annotated a training case, if some did not; else None. It is set
            before the network is built.
    """

    uses_raters = False
    trained_raters: Sequence[int] | None = None

    def network(self, model: ModelSettings, n_channels: int, task: Task) -> nn.Module:
        """Builds the untrained network, using torch's global random numbers.

        Args:
            model: architecture, encoder, weights and options.
            n_channels: image channels.
            task: the task.

        Raises:
            UserError: if the settings do not fit.
        """
        return build_model(**model.arguments, in_channels=n_channels)

    def objective(self, loss: LossSettings, streams: Streams) -> Objective:
        """The loss of one step.

        Args:
            loss: the configured loss.
            streams: random streams for the objective.

        Raises:
            UserError: if the settings do not fit.
        """
        return LabelObjective(build_loss(loss))

    def optimizer(self, network: nn.Module, settings: OptimSettings) -> optim.Optimizer:
        """The optimiser of the network's parameters."""
        return build_optimizer(network, settings)

    def schedule(self, optimizer: optim.Optimizer, settings: OptimSettings, total: int) -> optim.lr_scheduler.LambdaLR:
        """The learning rates of a training run with `total` steps.

        A resumed run computes the rates of its step, so the schedule is a `LambdaLR`: a factor on the optimiser's
        learning rate for each step from 0 to `total`. The last one is computed but not used.
        """
        return build_schedule(optimizer, settings, total)

    def predictor(self, network: nn.Module, streams: Streams) -> Predictor:
        """Predictions of the trained network."""
        return Predictor(network)


class RaterMethod(Method):
    """A method that distinguishes the raters of a task.

    Args:
        anonymous_raters: what to do if the k-th rater may be a different person in each case: ``error``, or
            ``position`` to treat the k-th rater of all cases as one person. Planning checks it.
    """

    uses_raters = True

    def __init__(self, anonymous_raters: str = "error") -> None:
        self.anonymous_raters = anonymous_raters


class RaterPredictor(Predictor):
    """Base class of predictors that use all raters or some of them.

    Args:
        network: the trained network.
        chosen: positions of the raters to use; None for all.
    """

    def __init__(self, network: nn.Module, chosen: Sequence[int] | None = None) -> None:
        super().__init__(network)
        self._chosen = slice(None) if chosen is None else list(chosen)
