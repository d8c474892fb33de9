"""The rivals of the RS2 benchmark choose what their definitions say, against references in NumPy and loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture
def scripts(script_of):
    return {name: script_of(name) for name in ("_harness", "_rs2_training", "_rs2_rivals")}


@pytest.fixture
def rivals(scripts):
    return scripts["_rs2_rivals"]


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def bench(scripts):
    """A builder of benches on ten noisy classes in 640 rows: 20 batches of 32 an epoch."""

    def rows(count, seed):
        targets = torch.randint(10, (count,), generator=draws(seed))
        centres = torch.randn(10, 1, 28, 28, generator=draws())
        images = centres[targets] + 2 * torch.randn(count, 1, 28, 28, generator=draws(seed))
        return scripts["_rs2_training"].CountedRows(images, targets)

    def build(ratio=0.1, rounds=20):
        options = scripts["_harness"].Options(False, True, None, (0,), "cpu", 1)
        return scripts["_rs2_training"].Bench(
            rows(640, 1), rows(100, 2), ratio=ratio, batch=32, rounds=rounds, points=1, options=options
        )

    return build


@pytest.fixture
def outputs(scripts):
    logits = 3 * torch.randn(50, 4, generator=draws(), dtype=torch.float64)
    features = torch.randn(50, 6, generator=draws(1), dtype=torch.float64)
    targets = torch.randint(4, (50,), generator=draws(2))
    return scripts["_rs2_training"].Outputs(features, logits.softmax(1), targets)


def test_uncertainties_against_numpy(rivals, outputs):
    p = outputs.probabilities.numpy()
    ordered = np.sort(p, axis=1)
    np.testing.assert_allclose(rivals.margin(outputs), ordered[:, -2] - ordered[:, -1])
    np.testing.assert_allclose(rivals.entropy(outputs), -(p * np.log(p)).sum(1))
    np.testing.assert_allclose(rivals.least_confidence(outputs), 1 - p.max(1))
    onehot = np.eye(4)[outputs.targets.numpy()]
    np.testing.assert_allclose(rivals.el2n(outputs), np.sqrt(((p - onehot) ** 2).sum(1)))


def test_uncertainties_of_what_is_certain(scripts, rivals):
    certain = scripts["_rs2_training"].Outputs(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert rivals.entropy(certain).tolist() == [0]
    assert rivals.least_confidence(certain).tolist() == [0]
    assert rivals.margin(certain).tolist() == [-1]
    assert rivals.grand(certain).tolist() == [0]


def test_grand_is_the_gradient_norm_at_weight_and_bias_of_the_last_layer(scripts, rivals):
    features, targets = torch.randn(20, 6, generator=draws()), torch.randint(4, (20,), generator=draws(1))
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    norms = []
    for hidden, target in zip(features, targets, strict=True):
        loss = nn.functional.cross_entropy(layer(hidden[None]), target[None])
        gradients = torch.autograd.grad(loss, [layer.weight, layer.bias])
        norms.append(math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients)))
    probabilities = layer(features).softmax(1).detach()
    scores = rivals.grand(scripts["_rs2_training"].Outputs(features, probabilities, targets))
    np.testing.assert_allclose(scores, norms, rtol=1e-4)


def test_predict_gives_the_input_of_the_last_layer(scripts, bench):
    training = scripts["_rs2_training"]
    for name in ("cnn", "resnet"):
        rows = bench().test
        module = training.Classifier(net=training.network(name, rows.images)).eval()
        said = training.predict(module, rows)
        logits = module.net[-1](said.features)
        torch.testing.assert_close(logits.softmax(1), said.probabilities)
        torch.testing.assert_close(module(rows.images).softmax(1), said.probabilities)
        assert said.targets is rows.labels


def test_top_takes_the_highest_and_draws_among_ties(rivals):
    assert rivals.top(torch.tensor([0.1, 3.0, -1.0, 2.0]), 2, draws()).tolist() == [1, 3]
    ties = torch.tensor([0.0, 1.0, 1.0, 1.0, math.inf])
    chosen = [tuple(rivals.top(ties, 2, draws(seed)).tolist()) for seed in range(40)]
    assert set(chosen) == {(4, 1), (4, 2), (4, 3)}


def brute_force_centres(points, count, first):
    chosen = [first]
    while len(chosen) < count:
        distances = [min(np.linalg.norm(point - points[row]) for row in chosen) for point in points]
        chosen.append(int(np.argmax(distances)))
    return chosen


def test_k_center_against_brute_force(rivals):
    features = torch.randn(60, 5, generator=draws(), dtype=torch.float64)
    expected = brute_force_centres(features.numpy(), 25, 7)
    assert rivals.k_center(features, 25, 7).tolist() == expected


def test_k_center_never_takes_a_row_twice_even_among_equal_rows(rivals):
    rows = rivals.k_center(torch.full((9, 3), 1e4) + torch.rand(9, 3, generator=draws()) * 1e-3, 9, 0)
    assert sorted(rows.tolist()) == list(range(9))


def test_herding_brings_the_mean_closest_at_every_step(rivals):
    features = torch.randn(40, 5, generator=draws(), dtype=torch.float64) + 1
    points = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    chosen = []
    for _ in range(15):
        free = [row for row in range(40) if row not in chosen]
        misses = [np.linalg.norm(points.mean(0) - points[[*chosen, row]].mean(0)) for row in free]
        chosen.append(free[int(np.argmin(misses))])
    assert rivals.herding(features, 15).tolist() == chosen


def test_quotas_keep_the_shares_of_the_classes(rivals):
    targets = torch.tensor([0] * 50 + [1] * 30 + [2] * 17 + [3] * 3)
    assert rivals.quotas(targets, 10).tolist() == [5, 3, 2, 0]
    assert rivals.quotas(targets, 33).tolist() == [16, 10, 6, 1]  # 16.5, 9.9, 5.61, 0.99


def test_forgetting_by_hand(rivals):
    counts = rivals.Forgetting(5)
    epochs = [[1, 0, 1, 0, 1], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 1, 1, 1]]
    for right in epochs:  # in another order and in two batches each time
        right = torch.tensor(right, dtype=torch.bool)
        for rows in (torch.tensor([4, 0]), torch.tensor([1, 3, 2])):
            counts.update(rows, right[rows])
    assert counts.scores().tolist() == [2, math.inf, 0, 1, 0]


def test_forgetting_reads_the_predictions_of_training(scripts, rivals, bench):
    """In eval mode a step makes the very predictions that can be taken just before it."""
    bench = bench()
    data = scripts["_rs2_training"].NumberedRows(bench.train.images, bench.train.labels)
    watch, seen = rivals.Forgetting(len(data)), torch.zeros(len(data), dtype=torch.bool)

    class Independent(rivals.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            images, targets, rows, _ = batch
            pl_module.eval()
            seen[rows] = pl_module(images).argmax(1) == targets
            torch.testing.assert_close(images, data.images[rows])

    bench.fit(0, rivals.Plan(data, {"max_steps": 20, "max_epochs": -1}, callbacks=[Independent(), watch]), 20)
    assert torch.equal(watch.was_right, seen)
    assert 0 < int(seen.sum()) < len(data)


def test_prune_drops_half_of_the_easy_and_stays_unbiased(rivals):
    losses, generator = torch.rand(4000, generator=draws()).square(), draws(1)
    easy, shares, totals = losses < losses.mean(), [], []
    for _ in range(200):
        rows, weights = rivals.prune(losses, 0.5, generator)
        kept = torch.zeros(len(losses), dtype=torch.bool)
        kept[rows] = True
        assert bool(kept[~easy].all())
        shares.append(float((~kept[easy]).float().mean()))
        totals.append(float((losses * weights)[kept].sum()))
    assert torch.equal(weights, 1 + easy.float())
    assert np.mean(shares) == pytest.approx(0.5, abs=0.005)
    error = np.std(totals) / math.sqrt(len(totals))
    assert np.mean(totals) == pytest.approx(float(losses.sum()), abs=4 * error)
    assert error < 0.001 * float(losses.sum())  # unbiased within a tenth of a per cent, not within anything


def watched(rivals, plan):
    """Return the list to which a fit of the plan adds (batch number, what came after images and labels, rate)."""
    steps = []

    class Watch(rivals.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            steps.append((batch_idx, batch, trainer.optimizers[0].param_groups[0]["lr"]))

    plan.callbacks.append(Watch())
    return steps


def test_infobatch_prunes_between_the_first_epoch_and_the_last_eighth(rivals, bench):
    bench = bench(ratio=0.2, rounds=20)  # 80 steps, 20 an epoch; the last 10 are unpruned
    plan = rivals.infobatch(bench, 0)
    steps = watched(rivals, plan)
    bench.fit(0, plan, bench.steps)
    assert len(steps) == bench.steps == 80
    starts = [number for number, (index, *_) in enumerate(steps) if index == 0]
    assert starts[:2] == [0, 20]
    assert 70 in starts  # a pruned epoch ends where the unpruned part begins
    heavy = [bool((weights == 2).any()) for _, (*_, weights), _ in steps]
    assert not any(heavy[:20])
    assert sum(heavy[20:70]) > 25
    assert not any(heavy[70:])

    def rows(begin, end):
        return torch.cat([batch[2] for _, batch, _ in steps[begin:end]]).tolist()

    second = rows(20, starts[2])
    assert len(second) == len(set(second)) < len(bench.train)
    assert sorted(rows(0, 20)) == list(range(640))
    assert len(rows(70, 80)) == len(set(rows(70, 80))) == 320


def test_infobatch_weights_follow_the_last_losses(scripts, rivals):
    data = scripts["_rs2_training"].NumberedRows(torch.zeros(64, 1, 4, 4), torch.zeros(64, dtype=torch.long))
    method = rivals.InfoBatch(data, batch=8, steps=100, draws=draws())
    assert sorted(method) == list(range(64))
    losses = torch.arange(64.0)
    for rows in torch.randperm(64, generator=draws()).split(8):
        method.on_train_batch_end(None, None, {"losses": losses[rows]}, (None, None, rows, None), 0)
    kept = sorted(method)
    assert kept[-32:] == list(range(32, 64))
    assert 6 < len(kept) - 32 < 26
    assert data.weights.tolist() == [2.0] * 32 + [1.0] * 32
    method.done = 84
    assert len(list(method)) == 3 * 8  # three steps before the unpruned part, which begins at 87 of 100
    assert data.weights.max() == 2
    method.done = 87
    assert sorted(method) == list(range(64))
    assert data.weights.tolist() == [1.0] * 64


def test_weights_scale_the_loss_of_their_samples(scripts):
    training = scripts["_rs2_training"]
    torch.manual_seed(0)
    module = training.Classifier()
    images, targets = torch.randn(6, 1, 28, 28), torch.randint(10, (6,))
    weights = torch.tensor([1.0, 2.0, 1.0, 2.0, 0.0, 1.0])
    weighted = module.training_step((images, targets, torch.arange(6), weights), 0)
    logits = module(images).detach()
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(weighted["loss"].detach(), (losses * weights).sum() / 6)
    torch.testing.assert_close(weighted["losses"], losses)
    torch.testing.assert_close(weighted["logits"], logits)
    torch.testing.assert_close(module.training_step((images, targets), 0).detach(), losses.mean())


def test_rescored_rounds_take_the_top_and_the_schedule_comes_down(scripts, rivals, bench):
    bench = bench(rounds=5)
    training, expected = scripts["_rs2_training"], []
    plan = rivals.rescored(bench, 0)

    class Independent(rivals.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            pl_module.eval()
            with torch.no_grad():
                best = pl_module(bench.train.images).softmax(1).sort(dim=1).values
            pl_module.train()
            gaps = (best[:, -1] - best[:, -2]).numpy()
            expected.append(set(np.argsort(gaps)[: bench.kept].tolist()))

    plan.callbacks.append(Independent())
    steps = watched(rivals, plan)
    module = bench.fit(0, plan, bench.steps)
    assert len(steps) == bench.steps == 10
    numbers = {image.numpy().tobytes(): row for row, image in enumerate(bench.train.images)}
    for number in range(5):
        images = torch.cat([batch[0] for _, batch, _ in steps[2 * number : 2 * number + 2]])
        assert {numbers[image.numpy().tobytes()] for image in images} == expected[number]
    assert len(set().union(*expected)) > bench.kept  # the weights change the choice
    rate = training.PEAK_RATE * (1 + math.cos(math.pi * 8 / 9)) / 2  # one step of warm-up, then the last of nine
    assert steps[-1][2] == pytest.approx(rate)
    assert module.lr_schedulers().get_last_lr()[0] == pytest.approx(0, abs=1e-12)


def test_rescoring_is_charged_as_selecting(rivals, bench):
    bench = bench(rounds=3)
    plan = rivals.rescored(bench, 0)
    run = bench.run(0, plan, bench.steps)
    assert 0 < plan.inside() == run["selecting seconds"] < run["seconds"]
    assert run["training seconds"] + run["selecting seconds"] == pytest.approx(run["seconds"])
    assert run["curve"][-1][1] == pytest.approx(run["seconds"])
