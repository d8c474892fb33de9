"""What the run of `tune-voice` remembers of the held-out losses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lightning_adapt.lina_speech.commands.tune_run import _Shown
from tests.lina_speech import tune_parts as parts

BETTER = "It was still getting better at the last step: more --steps or a higher --learning-rate may help."


@pytest.mark.parametrize(
    ("losses", "improving"),
    [
        ([2.0, 1.9], True),
        ([2.0, 1.9, 1.95], False),
        ([2.0, 1.9, 1.95, 1.89], True),
        ([1.9, 1.9], False),
        ([3.5, 3.2], False),  # better than before, but not than the base
        ([float("nan")], False),
        ([], False),
    ],
)
def test_the_last_loss_is_compared_with_all_before_and_the_base(losses, improving):
    told = []
    shown = _Shown(lambda *arguments: told.append(arguments))
    trainer = SimpleNamespace(callback_metrics={}, global_step=0)
    shown.on_train_batch_end(trainer, None)
    for step, loss in enumerate(losses, 1):
        trainer.callback_metrics = {
            "lina/held_out_loss": torch.tensor(loss),
            "lina/held_out_untuned": torch.tensor(3.0),
        }
        trainer.global_step = step
        shown.on_validation_end(trainer, None)
        shown.on_train_batch_end(trainer, None)
    assert shown.improving == improving
    assert told[0] == (0, None, None)
    assert len(told) == 1 + 2 * len(losses)


def test_the_summary_says_so(tmp_path, capsys):
    checkpoint = parts.trained(tmp_path / "base.ckpt")
    assert parts.tune(checkpoint, parts.recorded(4), "--steps", 4, "--val", "50%") == 0
    out = capsys.readouterr().out
    assert BETTER in out.splitlines()
    assert out.count("in 2 utterances") == 2
    assert parts.tune(checkpoint, parts.recorded(4), "--steps", 4, "--val", "0") == 0
    assert BETTER not in capsys.readouterr().out
