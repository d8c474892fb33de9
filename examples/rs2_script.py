"""RS2 on a module and a loader that were not written for it: one more callback, a tenth of the steps.

python examples/rs2_script.py
"""

import logging
import time
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_adapt import RS2Callback


class Digits(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("accuracy", (self.net(batch[0]).argmax(1) == batch[1]).float().mean(), batch_size=len(batch[1]))

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        steps = int(self.trainer.estimated_stepping_batches)  # the true number of steps, with RS2 too
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loaders() -> tuple[DataLoader, DataLoader]:
    digits = load_digits()
    data = TensorDataset(torch.from_numpy(digits.images).float() / 16, torch.from_numpy(digits.target))
    train, test = random_split(data, [1440, 357], torch.Generator().manual_seed(0))
    return DataLoader(train, batch_size=16, shuffle=True), DataLoader(test, batch_size=357)


def run(name: str, epochs: int, callbacks: list) -> float:
    torch.manual_seed(0)
    module, (train, test) = Digits(), loaders()
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    began = time.perf_counter()
    trainer.fit(module, train)
    seconds = time.perf_counter() - began
    (result,) = trainer.test(module, test, verbose=False)
    print(f"{name:32} {trainer.global_step:5} steps {seconds:6.1f} s   accuracy {100 * result['accuracy']:.1f} %")
    return result["accuracy"]


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    torch.set_num_threads(1)  # threads cost more than they bring in a network this small
    run("20 epochs", 20, callbacks=[])
    run("20 rounds of RS2, a tenth each", 20, callbacks=[RS2Callback(0.1)])
    run("2 epochs: what RS2 stands for", 2, callbacks=[])


if __name__ == "__main__":
    main()
