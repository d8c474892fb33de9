"""One cell of the matrix: runs a method with a foreign module, and says in a few words what came of it."""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from tests.matrix.methods import METHODS, Method, check_off
from tests.matrix.subjects import SUBJECTS

__all__ = ["LEGEND", "REASONS", "WORKS", "cell", "reason"]

WORKS = "works"
LIGHTNINGS = [  # what it says of such runs, with or without a method
    ".*does not have many workers",
    ".*is smaller than the logging interval",
    "You're using the WeightAveraging callback with a model that overrides the configure_model",
]

# what an error or a warning says, with what is to be done about it -> its words in the table
REASONS = {
    r"`loss_key` must be a key of what `?training_step`? returns.* `report` on the callback": "no losses of images",
    r"`loss_key` must be a key of what training_step returns.*mode='loss' needs the loss of every": "no sample losses",
    r"`loss_key` must be a key under which some step .*mode='loss' needs the loss of every sample": "no sample losses",
    r"selected nothing: no training step has returned or reported .*or call `report`": "no losses of images",
    r"flags samples, but nothing asks for the flags.*call `regroup` or `flagged`": "flags not asked for",
    r"RS2: the `train loader` .* got a stream .*give it a data set": "a stream",
    r"DiversitySelectionCallback: the `train loader` .* got a stream .*give it a data set": "a stream",
    r"`n_unlabeled` must be given .*Pass len\(unlabeled_dataset\)": "a stream",
    r"`labeled` must be a map-style data set.*A stream cannot be drawn from": "a stream",
    r"RS2: .* a loader without a WeightedRandomSampler.*use RS2Sampler\(mode='independent'": "weighted sampler",
    r"DiversitySelectionCallback: .*without a WeightedRandomSampler.*drop the weighted sampler": "weighted sampler",
    r"`output_module` must be given where the model has no Linear\(., 1\).*Name the module whose": "no score",
    r"`module` must be one that accepts initial states.*Add initial_state_shapes": "no initial states",
    r"`inner` must be a lightning.pytorch LightningDataModule.*Use RS2Callback": "that package",
    r"`image` must be an image, but got .*Pass PIL images": "no images",
    r"`label` must be a whole number, but got .*Number the classes": "no classes",
    r"`labeled` must be a data set of \(image, label\).*Let it return \(image, class\)": "no images",
    r"`n_labels` must be a whole number from 40 to 40.*of each of 10": "no classes",
    r"^'lb'$": "keys of batches",  # the module's own: in our batches there is no "lb"
    r"^Expected a parent$": "that package",  # Lightning's: a Trainer takes DataModules of its own package alone
}

# the words of the table -> what they stand for
LEGEND = {
    "works: losses returned": "`training_step` returns one key more, the loss of each sample",
    "works: flags asked for": "a line or two in `training_step`: `saa.regroup` makes the strong view",
    "works: three methods added": "those of `AcceptsInitialStates`; the hidden states that layers start from are tuned",
    "works: keys renamed": "the module reads our batches, whose keys have other names",
    "works: `RS2Sampler`": '`RS2Sampler(mode="independent", weights=...)` in place of the sampler',
    "refused: no sample losses": "`training_step` returns nothing; add the losses, as in the rows below",
    "refused: no losses of images": "there are no unlabelled images whose views could be adapted",
    "refused: a stream": "it has no rows to choose from or to remember",
    "refused: weighted sampler": "its draws would be thrown away",
    "refused: no score": "no output of one number a row: several classes, tokens or an embedding",
    "refused: no initial states": "no recurrence that could start from a given state, or none that says so",
    "refused: no images": "rows are not images with classes",
    "refused: no classes": "labels are not classes, or one row each",
    "refused: that package": "a DataModule of one package does not fit the Trainer of the other; the callbacks do",
}


@cache
def cell(subject: str, method: str) -> str:
    """Run a cell; once in a process.

    Args:
        subject: Key of `SUBJECTS`.
        method: Key of `METHODS`.

    Returns:
        "works", "works: " and what was added to the module, or "refused: " and why.

    Raises:
        AssertionError: If the method did not act, touched what it should not, or failed without a clear error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a warning of ours is a refusal, too
        for text in LIGHTNINGS:
            warnings.filterwarnings("ignore", text)
        return _cell(subject, METHODS[method], SUBJECTS[subject].added.get(method))


def _cell(subject: str, way: Method, added: Any) -> str:
    if way.make is not None:
        check_off(subject, way.make)
    words = _tried(subject, way, None)
    if added is None:
        return words
    assert words != WORKS, "it works without what is added"
    words = _tried(subject, way, added)
    return f"{words}: {way.addition}" if words == WORKS else words


def _tried(subject: str, way: Method, added: Any) -> str:
    try:
        way.check(subject, added)
    except (MisconfigurationException, TypeError, ValueError, KeyError, UserWarning) as error:
        return f"refused: {reason(error)}"
    return WORKS


def reason(error: BaseException) -> str:
    """Return the words for an error; one that is not known here is raised."""
    text = " ".join(str(error).split())
    found = {words for pattern, words in REASONS.items() if re.search(pattern, text)}
    if len(found) != 1:
        raise AssertionError(f"No clear error of ours: {type(error).__name__}: {text}") from error
    return found.pop()
