"""Initial-state tuning of a language model: a style learnt from 24 sentences, the weights frozen, nothing forgotten.

python examples/gla_style_script.py
"""

import logging
import random
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_adapt import InitialStateTuning
from lightning_adapt.functional import gla

LETTERS = "\n abcdefghijklmnopqrstuvwxyz"
NOUNS, VERBS = ["river", "house", "garden", "letter", "winter"], ["sleeps", "waits", "sings", "burns"]
AUTHORS = {"plain": "the {0} {2}", "grave": "alas the {0} {2} and so the {1}", "hasty": "{0} {2} {0} {2} quick"}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "enable_progress_bar": False}


def sentences(author: str, n: int, seed: int) -> list[Tensor]:
    draw = random.Random(f"{author} {seed}")
    texts = [AUTHORS[author].format(*draw.sample(NOUNS, 2), draw.choice(VERBS)) for _ in range(n)]
    return [torch.tensor([LETTERS.index(letter) for letter in f"\n{text}"[:40].ljust(40, "\n")]) for text in texts]


class LanguageModel(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.letters, self.head, self.states = nn.Embedding(len(LETTERS), 64), nn.Linear(64, len(LETTERS)), {}
        self.inputs = nn.ModuleList(nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 256)) for _ in range(2))

    def initial_state_shapes(self) -> dict:  # this and the next two are all that InitialStateTuning asks for
        return {str(number): (2, 32, 32) for number in range(2)}

    def use_initial_states(self, states: dict | None) -> None:
        self.states = states or {}

    def sequence_losses(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        x = self.letters(batch[:, :-1])
        for number, inputs in enumerate(self.inputs):
            q, k, v, gate = (part.unflatten(-1, (2, 32)) for part in inputs(x).chunk(4, -1))
            x = x + gla(q, k, v, nn.functional.logsigmoid(gate) / 16, self.states.get(str(number)))[0].flatten(-2)
        losses = nn.functional.cross_entropy(self.head(x).transpose(1, 2), batch[:, 1:], reduction="none")
        return losses.sum(1), torch.full((len(batch),), losses.shape[1])

    def training_step(self, batch: Tensor) -> Tensor:
        losses, counts = self.sequence_losses(batch)
        return losses.sum() / counts.sum()

    def validation_step(self, batch: Tensor) -> None:
        self.log("loss", self.training_step(batch))

    def loss_of(self, rows: DataLoader, *callbacks: InitialStateTuning) -> float:
        return Trainer(callbacks=list(callbacks), **QUIET).validate(self, rows, verbose=False)[0]["loss"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 3e-3)


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    seed_everything(0, verbose=False)
    module, mixed = LanguageModel(), [row for author in AUTHORS for row in sentences(author, 200, seed=0)]
    Trainer(max_epochs=6, **QUIET).fit(module, DataLoader(mixed, 32, shuffle=True))
    held_out = {author: DataLoader(sentences(author, 50, seed=1), 50) for author in AUTHORS}
    before = {author: module.loss_of(rows) for author, rows in held_out.items()}
    few, tuning = DataLoader(sentences("grave", 24, seed=2), 8, shuffle=True), InitialStateTuning("grave", rank=4)
    Trainer(max_epochs=20, callbacks=[tuning], **QUIET).fit(module, few, held_out["grave"])
    print(f"the style takes {tuning.tuned.nbytes} bytes; held-out loss before -> after tuning, from the style:")
    for author, rows in held_out.items():
        print(f"{author}: {before[author]:.3f} -> {module.loss_of(rows):.3f}, {module.loss_of(rows, tuning):.3f}")


if __name__ == "__main__":
    main()
