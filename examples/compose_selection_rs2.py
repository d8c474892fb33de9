"""RS2 inside a selection: first the part of the data that is worth it, then a fresh half of that part in each epoch.

python examples/compose_selection_rs2.py
"""

import logging
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_adapt import DiversitySelectionCallback, RS2Callback


class Points(Dataset):
    """Rows as anybody has them: four topics, one of them with random answers."""

    def __init__(self, n: int, seed: int, topics: int = 4) -> None:
        numbers = torch.Generator().manual_seed(seed)
        self.topic = torch.arange(n) % topics
        self.x = torch.randn(n, 4, generator=numbers) + 4 * torch.eye(4)[self.topic]
        right = (self.x.sum(1) > 4).long()
        self.y = torch.where(self.topic == 3, torch.randint(0, 2, (n,), generator=numbers), right)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row], self.y[row]


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        right = self.net(batch[0]).argmax(1) == batch[1]
        self.log("accuracy", right.float().mean(), batch_size=len(right))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def run(name: str, data: Points, callbacks: list) -> None:
    torch.manual_seed(0)
    module = Net()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=8, accelerator="cpu", callbacks=callbacks, enable_model_summary=False, **quiet)
    trainer.fit(module, DataLoader(data, 16, shuffle=True))
    (result,) = trainer.test(module, DataLoader(Points(999, 1, topics=3), 333), verbose=False)
    print(f"{name:26} {trainer.global_step:4} steps   accuracy on clean rows {100 * result['accuracy']:.1f} %")


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    data = Points(2000, 0)

    def right(examples: object, module: Net) -> Tensor:  # your scorer: here, whether the model agrees with the answer
        return module.net(data.x[examples.rows]).softmax(1).gather(1, data.y[examples.rows, None]).squeeze(1).detach()

    chosen = {"k": 4, "embedder": data.x, "scorer": right, "rounds": 2, "epochs_per_round": 2, "tau": 0.5}
    run("all rows", data, [])
    run("RS2", data, [RS2Callback(0.2)])
    run("selection", data, [DiversitySelectionCallback("20%", **chosen)])
    run("RS2 inside the selection", data, [DiversitySelectionCallback("20%", **chosen), RS2Callback(0.5)])  # this order


if __name__ == "__main__":
    main()
