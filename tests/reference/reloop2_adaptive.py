"""Readable float64 loops for the parts of the adaptive memory; nothing in here imports the package."""

from __future__ import annotations

import math

import numpy as np


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


class Effects:
    """One dict per group; a row at a time would be another algorithm, so batches are visited level by level."""

    def __init__(self, n_groups, prior_variance, half_life):
        self.mean = [{} for _ in range(n_groups)]
        self.evidence = [{} for _ in range(n_groups)]
        self.prior, self.half_life = 1 / prior_variance, half_life

    def read(self, rows):
        return np.array([[self.mean[group].get(level, 0.0) for group, level in enumerate(row)] for row in rows])

    def write(self, rows, offset, scales, labels, binary=True):
        total = np.array(offset, dtype=float)
        for group, scale in enumerate(scales):
            if not math.isnan(scale):
                total += scale * self.read(rows)[:, group]
        for group, scale in enumerate(scales):
            if math.isnan(scale):
                continue
            mean, evidence = self.mean[group], self.evidence[group]
            prediction = sigmoid(total) if binary else total.copy()
            step = {}
            for level in {row[group] for row in rows}:
                members = [i for i, row in enumerate(rows) if row[group] == level]
                slope = sum(labels[i] - prediction[i] for i in members)
                curvature = sum(prediction[i] * (1 - prediction[i]) if binary else 1 for i in members)
                evidence[level] = evidence.get(level, 0.0) + curvature
                step[level] = slope / (evidence[level] + self.prior)
                mean[level] = mean.get(level, 0.0) + step[level]
            for i, row in enumerate(rows):
                total[i] += scale * step[row[group]]
        for evidence in self.evidence:
            for level in evidence:
                evidence[level] *= 0.5 ** (len(labels) / self.half_life)


def adagrad(batches, initial, lower, upper, pull, rate):
    """Weights after (signals, residuals) batches: projected AdaGrad on the mean loss, with a pull towards 0."""
    weights, squares = np.array(initial, dtype=float), np.zeros(len(initial))
    for number, (signals, residuals) in enumerate(batches, start=1):
        gradient = -np.mean([r * np.asarray(x, dtype=float) for x, r in zip(signals, residuals, strict=True)], axis=0)
        squares += gradient**2
        for place, size in enumerate(np.sqrt(squares)):
            if size > 0:
                slope = gradient[place] + pull[place] * size / math.sqrt(number)
                moved = weights[place] - rate * slope / size
                weights[place] = min(max(moved, lower[place]), upper[place])
    return weights


def score(levels, residual, curvature, prior_variance):
    """Score statistic of a variance component, in nats."""
    total = 0.0
    for level in set(levels):
        r = sum(x for x, here in zip(residual, levels, strict=True) if here == level)
        v = sum(x for x, here in zip(curvature, levels, strict=True) if here == level)
        total += (r * r - v) / (v + 1 / prior_variance) / 2
    return total
