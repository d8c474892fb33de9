"""A sixth method, small and real: the files that the README's section "Add a sixth method" asks for, by path.

Gradient centering (Yong et al., ECCV 2020, arXiv 2004.01461): the mean is taken out of the gradient of each output.
"""

from __future__ import annotations

NAME = "gradient_centering"
_CARD = """# Gradient centering: gradients without their mean

## In one line
Takes the mean out of the gradient of every output before a step (Yong et al., ECCV 2020, arXiv 2004.01461).

## Attach it
Script: `L.Trainer(callbacks=[GradientCentering()])`. YAML: `lightning-adapt overlay gradient_centering`.

## Arguments
| argument | default | paper | meaning |
|---|---|---|---|
| `enabled` | True | | false switches it off |

## How it works
The gradient of a weight of two or more dimensions loses its mean over all but the first of them, in place.

## Support table
| | |
|---|---|
| 1 device, CPU | yes |
| 1 device, GPU | untested |
| DDP | yes |
| FSDP, DeepSpeed | untested |
| AMP (bf16-mixed) | yes |
| `torch.compile` | untested |
| resume | exact: it has no state |
| `accumulate_grad_batches` | yes |
| iterable data | yes |
| `pytorch_lightning` Trainer | yes |

## Measured here
Not measured, see [benchmarks](../../examples/benchmarks/README.md).

## Differences from paper and from authors' code
None known; the formula is Eq. 1 of the paper.

## Cost
One pass over the gradients for each step, and no memory.

## Cite
Yong, Huang, Hua, Zhang: Gradient Centralization, ECCV 2020.
"""
_FUNCTIONAL = '''"""The pure function of gradient centering (Yong et al., ECCV 2020, arXiv 2004.01461)."""

from __future__ import annotations

from torch import Tensor

__all__ = ["center_gradient"]


def center_gradient(gradient: Tensor) -> Tensor:
    """Take the mean out of the gradient of each output, Eq. 1 of Yong et al., 2020.

    Args:
        gradient: Of a weight, outputs first. Shape (out, ...), any float dtype; with one dimension it stays as it is.

    Returns:
        The centered gradient. Shape, dtype and device of `gradient`.

    Example:
        >>> import torch
        >>> center_gradient(torch.tensor([[1.0, 3.0]]))
        tensor([[-1.,  1.]])
    """
    return gradient if gradient.ndim < 2 else gradient - gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True)
'''
_CALLBACK = '''"""Gradient centering in any Trainer."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback

from lightning_adapt.gradient_centering.functional import center_gradient

__all__ = ["GradientCentering"]


class GradientCentering(Callback):
    """Centers every gradient before each step of an optimizer.

    Args:
        enabled: False switches it off.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Change the gradients in place."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for parameter in parameters if self.enabled else ():
            if parameter.grad is not None:
                parameter.grad.copy_(center_gradient(parameter.grad))
'''
_INIT = '''"""Gradient centering (Yong et al., ECCV 2020, arXiv 2004.01461)."""

from lightning_adapt._shared.lazy import attach

EXPORTS = {"GradientCentering": "callback"}

__getattr__, __dir__, __all__ = attach(__name__, {name: f"{__name__}.{where}" for name, where in EXPORTS.items()})
'''
_DEMO = '''"""The section of the demo: with and without, and a smaller rate as the control."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from lightning_adapt._shared.datasets import digits
from lightning_adapt._shared.demo_frame import Arm, Context, Gap, compare, over_seeds, table_rows
from lightning_adapt._shared.demo_parts import ImageClassifier
from lightning_adapt._shared.demo_training import quiet_trainer
from lightning_adapt._shared.report_parts import Column, Finding, Score, Section, Usage
from lightning_adapt.gradient_centering.callback import GradientCentering

__all__ = ["USAGE", "run"]

_ARMS = {
    "ours": Arm("gradients centered", "ours"),
    "slow": Arm("half the rate", "control"),
    "plain": Arm("as they are", "baseline"),
}
USAGE = Usage(
    command="lightning-adapt overlay gradient_centering",
    python="from lightning_adapt import GradientCentering\\n\\ntrainer = L.Trainer(callbacks=[GradientCentering()])",
    yaml="trainer:\\n  callbacks+:\\n  - class_path: lightning_adapt.GradientCentering\\n    init_args: {}",
)


def run(context: Context) -> Section:
    """Train every row and return what was found."""
    train, test = digits()
    epochs = 1 if context.quick else 5
    context.start(3 * 2 * epochs)

    def fit(_: None, arm: str, seed: int) -> float:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = ImageClassifier(8, learning_rate=0.05 if arm == "slow" else 0.1)
        loader = DataLoader(train, 32, shuffle=True, generator=torch.Generator().manual_seed(seed))
        quiet_trainer([GradientCentering(enabled=arm == "ours")], max_epochs=epochs).fit(model, loader)
        context.advance(epochs)
        images, labels = test.tensors
        return 100 * (model.eval()(images).argmax(1) == labels).float().mean().item()

    found = compare(context, _ARMS, range(2), fit)
    gap = Gap.between(found["ours"], found["plain"], 1, "points")
    score = Score("test accuracy, %", "as they are", f"{found['plain'][0]:.1f}", f"{found['ours'][0]:.1f}",
                  str(gap), gap.result, "two seeds")
    rows = table_rows(_ARMS, lambda arm: (over_seeds(found[arm]),))
    setting = f"digits, a small CNN, {epochs} epochs, 2 seeds."
    columns = (Column("test accuracy", "%", 1, "higher"),)
    finding = Finding("After training", columns, rows, setting, f"{gap}.", "Time is not measured.", score)
    problem = "A step should not move all weights of an output alike."
    return Section("gradient_centering", "Gradient centering: no mean", problem, (finding,), USAGE)
'''
_OVERLAY = """# Gradient centering; put it after your own config.
trainer:
  callbacks+:
    - class_path: lightning_adapt.GradientCentering
      init_args:
        enabled: true  # false switches it off
"""
_DEMO_YAML = """# A complete run on scikit-learn's digits.
seed_everything: 0
trainer:
  max_epochs: 1
  limit_train_batches: 5
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_model_summary: false
  default_root_dir: lightning_adapt_demo
  callbacks:
    - class_path: lightning_adapt.GradientCentering
model:
  class_path: lightning_adapt._shared.demo_parts.ImageClassifier
data:
  class_path: lightning_adapt._shared.demo_parts.ImageDataModule
"""
_EXAMPLE = '''"""Gradient centering on the digits.

python examples/gradient_centering_script.py
"""

from lightning.pytorch import Trainer

from lightning_adapt import GradientCentering
from lightning_adapt._shared.demo_parts import ImageClassifier, ImageDataModule

if __name__ == "__main__":
    Trainer(max_epochs=2, callbacks=[GradientCentering()]).fit(ImageClassifier(), ImageDataModule())
'''
_BENCHMARK = '''"""What gradient centering gains on the digits."""

import _harness as h

options = h.read_options(__doc__, 3, 1)
raise SystemExit(h.verdict([h.at_least("accuracy gained", [], 0.0)], options))
'''
NEW = {
    f"lightning_adapt/{NAME}/functional.py": _FUNCTIONAL,
    f"lightning_adapt/{NAME}/callback.py": _CALLBACK,
    f"lightning_adapt/{NAME}/__init__.py": _INIT,
    f"lightning_adapt/{NAME}/README.md": _CARD,
    f"lightning_adapt/{NAME}/demo.py": _DEMO,
    f"configs/{NAME}/overlay.yaml": _OVERLAY,
    f"configs/{NAME}/demo.yaml": _DEMO_YAML,
    f"examples/{NAME}_script.py": _EXAMPLE,
    f"examples/benchmarks/{NAME}_gain.py": _BENCHMARK,
}
_ENTRY = """    "GradientCentering": Entry(
        kind="training",
        build=lambda workers, batch_size: _rounds(workers, batch_size, GradientCentering()),
        resume="exact",
        without=_rounds,
        disabled={"enabled=False": lambda: _rounds(0, 8, GradientCentering(enabled=False))},
    ),
"""
_ROUNDS = """def _rounds(workers: int = 0, batch_size: int = 8, *callbacks: Any) -> Setup:
    return Setup({"datamodule": RS2DataModule(ForeignData(workers, batch_size), 0.3)}, list(callbacks))


"""
EDITS = {  # path -> (text that is there, text that comes before it)
    "lightning_adapt/__init__.py": [
        (")  # one folder each;", f'    "{NAME}",\n'),
        (
            "    from lightning_adapt.lina_speech.codecs",
            "    from lightning_adapt.gradient_centering.callback import GradientCentering as GradientCentering\n",
        ),
    ],
    "lightning_adapt/functional.py": [
        (
            "from lightning_adapt.lina_speech.functional import (",
            "from lightning_adapt.gradient_centering.functional import center_gradient\n",
        ),
        ('    "choose_k",', '    "center_gradient",\n'),
    ],
    "tests/registry.py": [
        ("from tests.divconq.entries import", "from lightning_adapt import GradientCentering\n"),
        ("REGISTRY: dict", _ROUNDS),
        ('    "RS2Callback": Entry(', _ENTRY),
    ],
    "README.md": [
        (
            "\n## Try it: two commands",
            f"| all weights move alike | `GradientCentering()` | [card](lightning_adapt/{NAME}/"
            f"README.md), [example](examples/{NAME}_script.py) |\n",
        ),
        ("\nWhat is not in this table", "| Gradient centering | `GradientCentering` |\n"),
    ],
}
