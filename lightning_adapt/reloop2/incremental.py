"""IncrementalTraining: the rival of an error memory; keep training the model on the stream it is tested on."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from typing_extensions import override

from lightning_adapt._shared.checks import check_choice, check_flag, check_integer, check_positive, problem
from lightning_adapt._shared.state import read_version, reading_state, with_version

__all__ = ["IncrementalTraining"]

STATE_VERSION = 1
_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}
_SHARDED = ("FSDP", "DeepSpeed", "ModelParallel")
Loss = Callable[[Any, Any], Tensor]


class IncrementalTraining(Callback):
    """Train on each test batch once its labels have arrived, after it was predicted; the usual answer to drift.

    What `ErrorMemoryCallback` is compared with (the IncCTR baseline of Zhu et al., KDD 2023, section 4.3), and what it
    can be combined with. Per update one optimizer step on the batches that arrived since the last one, with an
    optimizer of its own that starts fresh in each `trainer.test`.

    Under several processes the gradients are averaged, so that W processes with batches of B rows learn what one
    learns from batches of W * B rows. Sharded weights (FSDP, DeepSpeed) are refused.

    Args:
        learning_rate: Of the optimizer. The best value differs by stream: try 2e-4, 1e-3, 3e-3 and 1e-2.
        optimizer: "adam", "adagrad" or "sgd".
        delay: Batches between a batch's prediction and the arrival of its labels; 0: they arrive before the next batch.
        update_every_n_batches: Arrived batches per optimizer step; their losses are averaged.
        loss_fn: Takes the module and a batch and returns the loss. None: the module's own `training_step`, whose calls
            of `log` are left out.
        restore_weights: Put parameters and saved buffers back when the test ends.
        enabled: False switches it off.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
        MisconfigurationException: When a test starts, if module, strategy or precision do not allow it.

    .. tip:: All arguments but `loss_fn`, `restore_weights` and `enabled` tell two instances in one Trainer apart.

    Example:
        >>> IncrementalTraining(1e-3).learning_rate
        0.001
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        *,
        optimizer: Literal["adam", "adagrad", "sgd"] = "adam",
        delay: int = 0,
        update_every_n_batches: int = 1,
        loss_fn: Loss | None = None,
        restore_weights: bool = True,
        enabled: bool = True,
    ) -> None:
        self.learning_rate = check_positive("learning_rate", learning_rate, "Pass 0.001, say.")
        self.optimizer_name = check_choice("optimizer", optimizer, tuple(_OPTIMIZERS), "Pass 'adam'.")
        self.delay = check_integer("delay", delay, "Pass the number of batches that a label takes.")
        every = check_integer("update_every_n_batches", update_every_n_batches, "Pass 1.", minimum=1)
        self.update_every_n_batches = every
        if loss_fn is not None and not callable(loss_fn):
            raise TypeError(
                problem("loss_fn", "a function of module and batch", loss_fn, "Pass None for the module's.")
            )
        self.loss_fn = loss_fn
        self.restore_weights = check_flag("restore_weights", restore_weights, "Pass True to test without traces.")
        self.enabled = check_flag("enabled", enabled, "Pass False to switch it off.")
        self.updates = 0  # optimizer steps since the last test began
        self._clear()

    def _clear(self) -> None:
        self._waiting: deque[Any] = deque()  # predicted, labels under way
        self._arrived: list[Any] = []  # labels there, not yet trained on
        self._optimizer: torch.optim.Optimizer | None = None
        self._before: dict[str, Tensor] = {}
        self._flags: dict[nn.Module, bool] = {}

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(
            learning_rate=self.learning_rate,
            optimizer=self.optimizer_name,
            delay=self.delay,
            update_every_n_batches=self.update_every_n_batches,
        )

    # -- around a test --------------------------------------------------------------------------------------------
    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.enabled and stage == "test":
            _check_run(trainer, pl_module, own_loss=self.loss_fn is not None)
            # the Trainer switches everything to eval before the test starts; parts frozen in eval mode stay so here
            self._flags = {part: part.training for part in pl_module.modules()} if pl_module.training else {}

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.enabled:
            return
        _check_equal_batches(trainer)
        flags, self.updates = self._flags, 0
        self._clear()
        self._flags = flags
        with torch.inference_mode(False):
            if self.restore_weights:
                self._before = {name: value.detach().clone() for name, value in _tensors(pl_module).items()}
            parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
            if not parameters:
                remedy = "Unfreeze what is to learn, or set enabled=False."
                raise MisconfigurationException(problem("model", "one with trainable parameters", "none", remedy))
            optimizer: Any = _OPTIMIZERS[self.optimizer_name]
            self._optimizer = optimizer(parameters, lr=self.learning_rate)

    @override
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._optimizer is None:
            return
        with torch.inference_mode(False):  # what comes out of here may be trained on: a clone is no inference tensor
            self._waiting.append(apply_to_collection(batch, Tensor, lambda tensor: tensor.detach().clone()))
        if len(self._waiting) > self.delay:
            self._arrived.append(self._waiting.popleft())
        if len(self._arrived) == self.update_every_n_batches:
            self._update(trainer, pl_module, self._optimizer, batch_idx)

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(pl_module)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._finish(pl_module)

    def _finish(self, module: LightningModule) -> None:
        with torch.inference_mode(False), torch.no_grad():
            for name, value in _tensors(module).items():
                if name in self._before:
                    value.copy_(self._before[name])
        self._clear()

    # -- one update -----------------------------------------------------------------------------------------------
    def _update(self, trainer: Trainer, module: LightningModule, optimizer: torch.optim.Optimizer, index: int) -> None:
        batches, self._arrived = self._arrived, []
        with torch.inference_mode(False), torch.enable_grad(), _training(module, self._flags), _silent(module):
            optimizer.zero_grad()
            for batch in batches:
                with trainer.precision_plugin.forward_context():
                    loss = self._loss(module, batch, index)
                if loss is not None:
                    (loss / len(batches)).backward()  # type: ignore[no-untyped-call]
            _average_gradients(trainer, optimizer)
            optimizer.step()
            optimizer.zero_grad()
        self.updates += 1

    def _loss(self, module: LightningModule, batch: Any, index: int) -> Tensor | None:
        if self.loss_fn is not None:
            return self.loss_fn(module, batch)
        names = inspect.signature(module.training_step).parameters
        takes_index = len(names) > 1 or "args" in names
        result: Any = module.training_step(batch, index) if takes_index else module.training_step(batch)
        loss: Tensor | None = result["loss"] if isinstance(result, dict) else result
        return loss

    # -- state ----------------------------------------------------------------------------------------------------
    @override
    def state_dict(self) -> dict[str, Any]:
        return with_version({"updates": self.updates}, STATE_VERSION)

    @override
    @reading_state("IncrementalTraining")
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        read_version(state_dict, STATE_VERSION, "IncrementalTraining")
        self.updates = state_dict["updates"]


def _check_run(trainer: Trainer, module: LightningModule, *, own_loss: bool) -> None:
    strategy = type(trainer.strategy).__name__
    if any(name in strategy for name in _SHARDED):
        remedy = "Test with strategy='ddp' or on one device."
        raise MisconfigurationException(problem("strategy", "one that keeps weights whole", strategy, remedy))
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        remedy = "Use precision='bf16-mixed' or 32: the gradients of float16 would need a scaler."
        raise MisconfigurationException(problem("precision", "other than 16-mixed", trainer.precision, remedy))
    if not own_loss and not module.automatic_optimization:
        remedy = "Pass loss_fn: a training_step that steps its own optimizers cannot run in a test."
        raise MisconfigurationException(problem("loss_fn", "given for manual optimization", None, remedy))


def _check_equal_batches(trainer: Trainer) -> None:
    """Every rank must update equally often, or the ones that go on would wait for ever."""
    if trainer.world_size == 1:
        return
    here = torch.tensor([float(sum(trainer.num_test_batches))], device=trainer.strategy.root_device)
    counts = trainer.strategy.all_gather(here).flatten().tolist()
    if len(set(counts)) > 1:
        remedy = "Leave the sampler to the Trainer, or set limit_test_batches to the smallest number."
        raise MisconfigurationException(problem("test batches", "equally many on every rank", counts, remedy))


def _average_gradients(trainer: Trainer, optimizer: torch.optim.Optimizer) -> None:
    if trainer.world_size == 1:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # every rank takes part for every parameter, also where its own batch did not reach it
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = trainer.strategy.reduce(gradient, reduce_op="mean")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    kept = module.state_dict(keep_vars=True)
    return {name: value for name, value in kept.items() if isinstance(value, Tensor)}


@contextmanager
def _training(module: nn.Module, flags: dict[nn.Module, bool]) -> Iterator[None]:
    """Switch to training, and give every part its own flag back."""
    before = [(part, part.training) for part in module.modules()]
    for part, _ in before:
        part.training = flags.get(part, True)
    try:
        yield
    finally:
        for part, flag in before:
            part.training = flag


@contextmanager
def _silent(module: LightningModule) -> Iterator[None]:
    """Let `training_step` log nothing: its names are not the test's, and some of its options are not allowed there."""
    names = ("log", "log_dict")
    before = {name: vars(module)[name] for name in names if name in vars(module)}
    for name in names:
        vars(module)[name] = lambda *_, **__: None
    try:
        yield
    finally:
        for name in names:
            del vars(module)[name]
        vars(module).update(before)
