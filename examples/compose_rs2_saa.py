"""RS2 on the unlabelled images of SAA: each epoch a fresh share of them, whose learnt views are made more diverse.

python examples/compose_rs2_saa.py
"""

import logging
import warnings

import torch
from lightning.pytorch import Trainer
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset, random_split

from lightning_adapt import FixMatchModule, RS2Callback, SAADataModule, SampleAdaptiveAugmentation


def run(name: str, callbacks: list) -> None:
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    whole = TensorDataset(images, torch.from_numpy(digits.target))
    train, test = random_split(whole, [1437, 360], torch.Generator().manual_seed(0))
    data = SAADataModule(train, test=test, n_labels=40, batch_size=8, mu=4, steps_per_epoch=30, flip=False)
    torch.manual_seed(0)
    module = FixMatchModule("cnn", n_classes=10, channels=1)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=4, accelerator="cpu", callbacks=callbacks, enable_model_summary=False, **quiet)
    trainer.fit(module, data)
    (result,) = trainer.test(module, data, verbose=False)
    accuracy = next(value for key, value in result.items() if "acc" in key)
    saa = next((one for one in callbacks if isinstance(one, SampleAdaptiveAugmentation)), None)
    learnt = "" if saa is None else f"   learnt at the end {100 * saa.history.naive_share:.0f} %"
    print(f"{name:14} {trainer.global_step:4} steps   accuracy {100 * accuracy:.1f} %{learnt}")


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    # a loss of every second image is enough to begin with: in two rounds RS2 brings no more
    saa = {"min_coverage": 0.5, "warmup": 0.25}
    half = {"loader": "unlabeled", "validate": "round"}  # there are two train loaders: name the one that is sampled
    run("FixMatch", [])
    run("SAA", [SampleAdaptiveAugmentation(**saa)])
    run("SAA and RS2", [SampleAdaptiveAugmentation(**saa), RS2Callback(0.5, **half)])  # in any order


if __name__ == "__main__":
    main()
