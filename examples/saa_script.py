"""Sample-adaptive augmentation on a FixMatch module that was not written for it: two more keys and one more callback.

python examples/saa_script.py
"""

import logging
import warnings

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset, random_split

from lightning_adapt import SAADataModule, SampleAdaptiveAugmentation


class FixMatch(LightningModule):
    """FixMatch as one writes it: confident predictions on weak views are the labels of strong views."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)),
        )

    def training_step(self, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        images = torch.cat([labeled["image"], unlabeled["weak"], unlabeled["strong"]])
        n = len(unlabeled["weak"])
        of_labeled, of_weak, of_strong = self.net(images).split([len(images) - 2 * n, n, n])
        confidence, guess = of_weak.detach().softmax(1).max(1)
        losses = F.cross_entropy(of_strong, guess, reduction="none")
        loss = F.cross_entropy(of_labeled, labeled["label"]) + (losses * (confidence >= 0.95)).mean()
        # the two keys: the loss of each unlabelled image before the mask, and its row
        return {"loss": loss, "sample_loss": losses.detach(), "index": unlabeled["index"]}

    # With data of your own in place of the SAADataModule: pass the callback n_unlabeled=len(unlabeled), keep it as
    # self.saa, and make the strong views in the step by `saa.regroup(strong(images), strong(images), index)`, which
    # returns the first ones, those of naive images composed of both.

    def test_step(self, batch: dict[str, Tensor]) -> None:
        right = self.net(batch["image"]).argmax(1) == batch["label"]
        self.log("accuracy", right.float().mean(), batch_size=len(right))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4)


def run(name: str, callbacks: list, seed: int) -> None:
    torch.manual_seed(seed)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    train, test = random_split(TensorDataset(images, torch.from_numpy(digits.target)), [1437, 360])
    # 4 labels a class; a mirrored digit is another one, so no flips
    data = SAADataModule(train, test=test, n_labels=40, batch_size=16, mu=4, steps_per_epoch=45, flip=False, seed=seed)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=8, accelerator="cpu", callbacks=callbacks, enable_model_summary=False, **quiet)
    module = FixMatch()
    trainer.fit(module, datamodule=data)
    (result,) = trainer.test(module, datamodule=data, verbose=False)
    naive = callbacks[0].history.naive_share if callbacks else 0.0
    print(f"seed {seed}  {name:28} accuracy {100 * result['accuracy']:.1f} %   naive at the end {100 * naive:.0f} %")


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    for seed in range(2):
        run("FixMatch", [], seed)
        run("FixMatch, views adapted", [SampleAdaptiveAugmentation(warmup=0.25)], seed)


if __name__ == "__main__":
    main()
