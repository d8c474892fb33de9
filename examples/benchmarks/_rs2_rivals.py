"""The rivals of RS2 that score samples: what each scores, what it then trains on, and what choosing costs it.

Definitions follow the papers where the published RS2 code departs from them: probabilities instead of raw logits, one
softmax instead of two, herding towards the mean, schedules over optimizer steps. The scorers train as the rows do, on
all data, with a schedule over their own epochs; their seconds are charged as selecting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from _harness import spent
from _rs2_training import Bench, NumberedRows, Outputs, Plan, predict
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from typing_extensions import override

from lightning_adapt._shared.demo_training import CountedRows

FORGETTING_EPOCHS = 3
Rule = Callable[[Outputs], Tensor]  # scores of shape (N,), the highest are kept


def margin(outputs: Outputs) -> Tensor:
    """Return minus the margin p1 - p2, so that the most uncertain score highest."""
    best = outputs.probabilities.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def entropy(outputs: Outputs) -> Tensor:
    """Return -sum p log p, with 0 log 0 = 0."""
    return torch.special.entr(outputs.probabilities).sum(dim=1)


def least_confidence(outputs: Outputs) -> Tensor:
    """Return 1 - max p."""
    return 1 - outputs.probabilities.amax(dim=1)


def el2n(outputs: Outputs) -> Tensor:
    """Return ||p - y||2."""
    return (outputs.probabilities - nn.functional.one_hot(outputs.targets, outputs.probabilities.shape[1])).norm(dim=1)


def grand(outputs: Outputs) -> Tensor:
    """Return the norm of the gradient at the last layer's weight and bias: ||p - y|| sqrt(1 + ||h||^2)."""
    return el2n(outputs) * (1 + outputs.features.square().sum(dim=1)).sqrt()


def top(scores: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """Return the rows of the highest scores, highest first; ties are drawn at random."""
    order = torch.randperm(len(scores), generator=draws)
    return order[scores[order].argsort(descending=True, stable=True)[:count]]


def seeded(seed: int) -> torch.Generator:
    """Return a generator that no other part draws from."""
    return torch.Generator().manual_seed(seed)


def scorer(bench: Bench, seed: int, net: int = 0) -> Outputs:
    """Train a network for one epoch on all data and return what it says about them."""
    module = bench.fit(1000 + 10 * seed + net, Plan(bench.train, {"max_epochs": 1}), bench.epoch_steps)
    return predict(module, bench.train)


def scored(bench: Bench, seed: int, rule: Rule, nets: int = 1) -> Plan:
    """Keep the rows with the highest mean score over some networks, for ever."""
    began, total = spent(bench.device), torch.zeros(len(bench.train))
    for net in range(nets):
        total += rule(scorer(bench, seed, net))
    rows = top(total, bench.kept, seeded(seed))
    return bench.subset(rows, spent(bench.device) - began)


class Forgetting(Callback):
    """Counts how often a sample goes from right to wrong, from the predictions that training makes anyway.

    Args:
        count: Number of samples N.
    """

    def __init__(self, count: int) -> None:
        self.flips, self.was_right = torch.zeros(count), torch.zeros(count, dtype=torch.bool)
        self.learnt = torch.zeros(count, dtype=torch.bool)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        _, targets, rows, _ = batch
        self.update(rows.cpu(), (outputs["logits"].argmax(1) == targets).cpu())

    def update(self, rows: Tensor, right: Tensor) -> None:
        """Note for some rows, shape (B,), whether they are right now, shape (B,)."""
        self.flips[rows] += (self.was_right[rows] & ~right).float()
        self.was_right[rows] = right
        self.learnt[rows] |= right

    def scores(self) -> Tensor:
        """Return the flips, shape (N,); what was never right counts as forgotten most."""
        return torch.where(self.learnt, self.flips, torch.inf)


def forgetting(bench: Bench, seed: int, epochs: int = FORGETTING_EPOCHS) -> Plan:
    """Keep what a network forgets most in its first epochs; few epochs leave many ties, which are drawn at random."""
    began = spent(bench.device)
    watch, data = Forgetting(len(bench.train)), NumberedRows(bench.train.images, bench.train.labels)
    plan = Plan(data, {"max_epochs": epochs}, callbacks=[watch])
    bench.fit(1000 + 10 * seed, plan, epochs * bench.epoch_steps)
    rows = top(watch.scores(), bench.kept, seeded(seed))
    return bench.subset(rows, spent(bench.device) - began)


def k_center(features: Tensor, count: int, first: int) -> Tensor:
    """Return `count` rows of (N, D), each the farthest from those before it; only a running minimum is kept."""
    norms = features.square().sum(dim=1)
    nearest = torch.full_like(norms, torch.inf)
    rows = [first]
    while len(rows) < count:
        last = rows[-1]
        torch.minimum(nearest, norms - 2 * (features @ features[last]) + norms[last], out=nearest)
        nearest[last] = -torch.inf  # rounding must not bring it back
        rows.append(int(nearest.argmax()))
    return torch.tensor(rows)


def quotas(targets: Tensor, count: int) -> Tensor:
    """Return rows per class, shape (classes,): shares of `count` as in the data, the largest remainders rounded up."""
    shares = torch.bincount(targets).double() * count / len(targets)
    whole = shares.floor().long()
    whole[(shares - whole).argsort(descending=True, stable=True)[: count - int(whole.sum())]] += 1
    return whole


def herding(features: Tensor, count: int) -> Tensor:
    """Return `count` rows of (N, D) whose mean follows the mean of all, best first.

    The residual starts at the mean; each step takes the row with the largest inner product with it, then adds the mean
    and takes the row away. With rows of length 1, as here, that is the row that brings the mean of the chosen closest.
    """
    features = nn.functional.normalize(features, dim=1)
    mean = features.mean(dim=0)
    residual, free = mean.clone(), torch.zeros(len(features))
    rows = []
    for _ in range(count):
        rows.append(int((features @ residual + free).argmax()))
        free[rows[-1]] = -torch.inf
        residual += mean - features[rows[-1]]
    return torch.tensor(rows, dtype=torch.long)


def k_center_greedy(bench: Bench, seed: int) -> Plan:
    """Cover the feature space of the scorer; the first centre is drawn."""
    began = spent(bench.device)
    features = scorer(bench, seed).features
    first = int(torch.randint(len(features), (1,), generator=seeded(seed)))
    return bench.subset(k_center(features, bench.kept, first), spent(bench.device) - began)


def herding_per_class(bench: Bench, seed: int) -> Plan:
    """Follow the mean feature of each class; classes keep their shares."""
    began = spent(bench.device)
    outputs, parts = scorer(bench, seed), []
    for number, count in enumerate(quotas(outputs.targets, bench.kept).tolist()):
        members = (outputs.targets == number).nonzero().flatten()
        parts.append(members[herding(outputs.features[members], count)])
    return bench.subset(torch.cat(parts), spent(bench.device) - began)


def prune(losses: Tensor, drop: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Drop rows with a loss below the mean at random; return the kept rows and everybody's weight, shape (N,)."""
    easy = losses < losses.mean()
    dropped = easy & (torch.rand(len(losses), generator=draws) < drop)
    return (~dropped).nonzero().flatten(), torch.where(easy, 1 / (1 - drop), 1.0)


class InfoBatch(Callback):
    """The order and the loss weights of InfoBatch: it is the sampler of the loader and a callback of the Trainer.

    The mean loss of a batch is over its own samples, as in the authors' code, so that gradients grow with what was
    dropped. A pruned epoch ends where the unpruned last part of the run begins. The first epoch is whole: no loss is
    known yet.

    Args:
        data: What the loader reads; its weights are set before every epoch.
        batch: Batch size.
        steps: Optimizer steps of the whole run.
        draws: Source of the drops and the shuffles.
        drop: Probability of leaving out a sample whose last loss is below the mean.
        unpruned: Share of the steps at the end that sees everything.
    """

    def __init__(
        self,
        data: NumberedRows,
        *,
        batch: int,
        steps: int,
        draws: torch.Generator,
        drop: float = 0.5,
        unpruned: float = 0.125,
    ) -> None:
        self.data, self.batch, self.draws, self.drop = data, batch, draws, drop
        self.boundary = math.floor(steps * (1 - unpruned))
        self.done = 0
        self.losses = torch.full((len(data),), torch.inf)

    def __len__(self) -> int:
        return len(self.data)  # of the longest epoch; the Trainer takes a shorter one as it comes

    def __iter__(self) -> Iterator[int]:
        rows, weights = torch.arange(len(self.data)), torch.ones(len(self.data))
        left = self.boundary - self.done
        pruned = left > 0 and bool(self.losses.isfinite().all())
        if pruned:
            rows, weights = prune(self.losses, self.drop, self.draws)
        self.data.weights = weights
        rows = rows[torch.randperm(len(rows), generator=self.draws)]
        yield from (rows[: left * self.batch] if pruned else rows).tolist()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.done += 1
        self.losses[batch[2].cpu()] = outputs["losses"].cpu()


def infobatch(bench: Bench, seed: int) -> Plan:
    """InfoBatch for as many steps as RS2 makes, the schedule over exactly these.

    What it does not train on is spent on further passes, so this row says what its choice is worth, not what it saves.
    Its first epoch is whole. At a ratio of 0.1 and 20 rounds the budget is two epochs of all data: it prunes in the
    second and in the start of a third. Up to a ratio of 0.05 it never prunes.
    """
    data = NumberedRows(bench.train.images, bench.train.labels)
    method = InfoBatch(data, batch=bench.batch, steps=bench.steps, draws=seeded(seed))
    return Plan(data, {"max_steps": bench.steps, "max_epochs": -1}, callbacks=[method], sampler=method)


class Rescored(Callback):
    """Scores all rows with the current weights before each round and gives the round its highest.

    Args:
        data: The rows.
        count: Rows of a round.
        rule: The score.
        draws: Source of the shuffles.
        device: "cpu" or "cuda", for the clock.
    """

    def __init__(self, data: CountedRows, count: int, rule: Rule, draws: torch.Generator, device: str) -> None:
        self.data, self.count, self.rule, self.draws, self.device = data, count, rule, draws, device
        self.selecting = 0.0  # seconds
        self.rows = torch.arange(count)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:  # lazy: the round's first row is asked for after on_train_epoch_start
        yield from self.rows[torch.randperm(self.count, generator=self.draws)].tolist()

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        began = spent(self.device)
        self.rows = top(self.rule(predict(pl_module, self.data)), self.count, self.draws)
        self.selecting += spent(self.device) - began


def rescored(bench: Bench, seed: int, rule: Rule = margin) -> Plan:
    """Choose the most uncertain rows anew in every round; the forward passes over all rows count as selecting.

    The schedule runs over the optimizer steps. The published code counts samples instead, which leaves its rate at the
    peak until the end.
    """
    method = Rescored(bench.train, bench.kept, rule, seeded(seed), bench.device)
    plan = {"max_epochs": bench.rounds}
    return Plan(bench.train, plan, callbacks=[method], sampler=method, inside=lambda: method.selecting)


RIVALS: dict[str, Callable[[Bench, int], Plan]] = {
    "margin, most uncertain": partial(scored, rule=margin),
    "entropy, most uncertain": partial(scored, rule=entropy),
    "least confident": partial(scored, rule=least_confidence),
    "EL2N, hardest": partial(scored, rule=el2n, nets=3),
    "GraNd, hardest": partial(scored, rule=grand, nets=3),
    "forgetting, most forgotten": forgetting,
    "k-center greedy": k_center_greedy,
    "herding per class": herding_per_class,
    "InfoBatch, equal steps": infobatch,
    "margin, rescored every round": rescored,
}
