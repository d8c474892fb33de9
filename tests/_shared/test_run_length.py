"""RunLength: asked for late, once a run."""

from __future__ import annotations

from lightning_adapt._shared.run_length import RunLength


def test_the_length_is_asked_for_when_it_is_needed_and_again_in_a_run_after_a_trial():
    answers = [3.0, 3.0, 100.0, 100.0, 200.0]
    length = RunLength(lambda: answers.pop(0))
    assert len(answers) == 5
    assert [length.at(step) for step in (1, 1, 2, 2, 3, 3)] == [3.0] * 6, "every parameter group asks"
    assert [length.at(step) for step in (1, 1, 2, 50)] == [100.0] * 4
    assert [length.at(step) for step in (49, 49, 50)] == [200.0] * 3, "after a trial inside a run"
    assert not answers


def test_a_trial_of_one_step_leaves_nothing():
    answers = [1.0, 100.0]
    length = RunLength(lambda: answers.pop(0))
    assert [length.at(1), length.at(1), length.at(2)] == [1.0, 100.0, 100.0]
