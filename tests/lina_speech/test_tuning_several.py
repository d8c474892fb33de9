"""Several voices in one fit: rows start from their own voice, and each voice learns from its own rows."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from tests.foreign import trainer
from tests.foreign_gla import STYLES, ChainData, Chains, ForeignGLA
from tests.lina_speech.tuning_parts import base, fit, loss_of, tuning


class Speakers(ChainData):
    """Texts of all styles, mixed in every batch; the names of the speakers are known."""

    speakers = STYLES

    def __init__(self, styles=(0, 1, 2), n: int = 48) -> None:
        super().__init__(n=n, styles=styles)


class Gradients(Callback):
    """Notes which voices got a gradient from a batch, and what the batch started from."""

    def __init__(self) -> None:
        self.found, self.given = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.given.append({name: value.detach().clone() for name, value in pl_module.beginning.items()})

    def on_after_backward(self, trainer, pl_module) -> None:
        states = pl_module.tuned_initial_states
        grads = [value.grad.flatten(1).abs().sum(1) for value in states.parameters()]
        self.found.append([bool(value) for value in torch.stack(grads).sum(0)])


def test_rows_of_a_batch_start_from_their_own_voice(tmp_path):
    callback, module = tuning(STYLES, rank=2), base()
    fit(tmp_path, callback, module, Speakers(), max_epochs=3)
    rows = DataLoader(Chains(12, (0, 2, 1), seed=5), batch_size=12)
    (found,), (batch,) = trainer(tmp_path, [callback]).predict(module, rows), rows
    assert module.beginning == {}
    module.eval()
    for row in range(12):
        style = (0, 2, 1)[row % 3]
        voice = callback.voices[STYLES[style]]
        module.use_initial_states({name: value[None] for name, value in voice.matrices().items()})
        with torch.no_grad():
            alone = module.predict_step({"letters": batch["letters"][row : row + 1]}, 0)
        assert torch.allclose(found[row], alone[0], atol=1e-5)
        module.use_initial_states(None)
        with torch.no_grad():
            plain = module.predict_step({"letters": batch["letters"][row : row + 1]}, 0)
        assert not torch.allclose(found[row], plain[0], atol=1e-3)


def test_a_batch_of_one_voice_gives_the_others_no_gradient(tmp_path):
    watch = Gradients()
    rows = Chains(24, (1,), seed=5)
    data = Speakers()
    data.train_dataloader = lambda: DataLoader(rows, batch_size=8)
    fit(tmp_path, tuning(STYLES), base(), data, others=[watch], max_epochs=1)
    assert watch.found == [[False, True, False]] * 3
    for given in watch.given:
        assert all(len(value) == 8 for value in given.values())
        assert all(torch.equal(value[0], row) for value in given.values() for row in value)


def test_each_voice_is_tuned_as_if_it_were_alone(tmp_path):
    """With batches of one voice each in turn and a plain step, company changes nothing."""

    class Descent(Callback):
        """Adam's step is not that of one voice alone: its moments go on. Plain descent is."""

        def on_train_start(self, trainer, pl_module) -> None:
            trainer.optimizers = [torch.optim.SGD(pl_module.tuned_initial_states.parameters(), lr=1.0)]

    rows = {style: Chains(24, (style,), seed=5).rows for style in (0, 1)}
    batches = {style: DataLoader(rows[style], batch_size=8) for style in rows}
    turns = DataLoader([row for i in (0, 8, 16) for style in rows for row in rows[style][i : i + 8]], batch_size=8)
    together, alone = tuning(["ada", "bo"], rank=2), {}
    trainer(tmp_path, [together, Descent()], max_epochs=2).fit(base(), turns)
    for style in (0, 1):
        callback = tuning(STYLES[style], rank=2)
        trainer(tmp_path, [callback, Descent()], max_epochs=2).fit(base(), batches[style])
        alone[STYLES[style]] = callback.tuned
    start = tuning(rank=2)
    trainer(tmp_path, [start], max_epochs=0).fit(base(), turns)
    for name, voice in alone.items():
        for tensor, value in voice.tensors.items():
            assert torch.allclose(together.voices[name].tensors[tensor], value, atol=1e-6)
        assert any(not torch.equal(value, start.tuned.tensors[tensor]) for tensor, value in voice.tensors.items())


def test_each_voice_keeps_its_own_best_and_is_logged(tmp_path):
    class Logged(Callback):
        def on_validation_end(self, trainer, pl_module) -> None:
            logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    logged: list[dict[str, float]] = []
    callback, module = tuning(["cy", "ada", "bo"], rank=2), base()
    fit(tmp_path, callback, module, Speakers(), others=[Logged()], max_epochs=5)
    for number, name in enumerate(STYLES):
        voice = callback.voices[name]
        states = {layer: value[None] for layer, value in voice.matrices().items()}
        rows = Chains(16, (0, 1, 2), seed=99)  # what was validated on, of this voice
        (batch,) = DataLoader([row for row in rows if int(row["speaker"]) == number], batch_size=16)
        module.eval().use_initial_states(states)
        with torch.no_grad():
            losses, counts = module.sequence_losses(batch)
        assert voice.held_out["tuned"] == pytest.approx(float(losses.sum() / counts.sum()), rel=1e-5)
        module.train().use_initial_states(None)
        ratios = [found[f"lina/held_out_ratio/{name}"] for found in logged]
        assert min(ratios) == pytest.approx(voice.held_out["tuned"] / voice.held_out["untuned"], rel=1e-5)
        assert min(ratios) < 0.99
        assert loss_of(module, number, states) < loss_of(module, number), "a voice is of its own style"
    losses = [callback.voices[name].held_out["untuned"] for name in STYLES]
    assert logged[0]["lina/held_out_untuned"] == pytest.approx(sum(losses) / 3, rel=1e-6)


def test_a_voice_without_held_out_data_keeps_its_last_state(tmp_path):
    data = Speakers(styles=(0, 1))
    data.held_out = Chains(16, (0,), seed=99)
    callback = tuning(["ada", "bo"], patience=4)
    with pytest.warns(UserWarning, match="had no held-out data of 'bo': the last states are kept"):
        fit(tmp_path, callback, base(), data, max_epochs=3)
    assert callback.voices["bo"].held_out is None
    assert callback.voices["bo"].matrices()["layers.0"].any()
    assert callback.voices["ada"].held_out is not None


@pytest.mark.parametrize(
    ("voices", "match"),
    [
        (
            ["ada", "bo"],
            r"`batch\['speaker'\]` must be one of the tuned voices, 'ada', 'bo', but got 'cy'. Leave other",
        ),
        (["ada", "dora"], "`voice` must be names among the speakers of the data, 'ada', 'bo', 'cy'"),
    ],
)
def test_rows_and_voices_must_fit(voices, match, tmp_path):
    with pytest.raises(MisconfigurationException, match=match):
        fit(tmp_path, tuning(voices), base(), Speakers())


def test_the_key_of_the_speakers_can_be_named(tmp_path):
    match = "`batch` must be a dict with the key 'who' for several voices"
    with pytest.raises(MisconfigurationException, match=match):
        fit(tmp_path, tuning(STYLES, speaker_key="who"), base(), Speakers())
    fit(tmp_path, callback := tuning(["row 0", "row 1"], speaker_key="half"), base(), Halves())
    assert callback.voices.keys() == {"row 0", "row 1"}


def test_batches_may_be_tuples(tmp_path):
    class Tuples(ForeignGLA):
        def losses(self, batch):
            return super().losses({"letters": batch[0]})

        def loss(self, batch):
            return self.losses(batch).mean()

        def sequence_losses(self, batch):
            losses = self.losses(batch)
            return losses.sum(1), torch.full((len(losses),), losses.shape[1])

        def training_step(self, batch, batch_idx):
            return self.loss(batch)

        def validation_step(self, batch, batch_idx):
            assert len(self.beginning["layers.0"]) == len(batch[0])

    module = Tuples()
    module.load_state_dict(base().state_dict())
    rows = [(row["letters"].clamp(min=0), row["speaker"]) for row in Chains(24, (0, 1))]
    callback, loader = tuning(["ada", "bo"], speaker_key=1), DataLoader(rows, batch_size=8)
    trainer(tmp_path, [callback], max_epochs=2).fit(module, loader, loader)
    assert all(voice.held_out["tuned"] < voice.held_out["untuned"] for voice in callback.voices.values())


class Halves(ChainData):
    """Batches that say under another key to which half of the styles a text belongs; there are no names."""

    def __init__(self) -> None:
        super().__init__(n=16, styles=(0, 1))
        for rows in (self.train.rows, self.held_out.rows):
            for row in rows:
                row["half"] = row.pop("speaker")
