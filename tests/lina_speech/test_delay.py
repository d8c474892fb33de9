"""The delay pattern: equal to a loop over its definition, and back without loss."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.lina_speech.model.delay import BOA, CODE_OFFSET, EOA, PAD, delay_codes, undelay_codes


def random_codes(batch, n_codebooks, n_frames, seed=0):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, n_frames + 1, (batch,), generator=draw)
    lengths[0] = n_frames
    return torch.randint(0, 50, (batch, n_codebooks, n_frames), generator=draw), lengths


def by_loop(codes, lengths):
    """(i + 1) x BOA, codes + 3, (Q - i) x EOA, then PAD, written out row by row."""
    batch, n_codebooks, n_frames = codes.shape
    rows = []
    for b in range(batch):
        n = int(lengths[b])
        for i in range(n_codebooks):
            row = [1] * (i + 1) + [int(code) + 3 for code in codes[b, i, :n]] + [2] * (n_codebooks - i)
            rows.append(row + [0] * (n_frames + n_codebooks + 1 - len(row)))
    return torch.tensor(rows).view(batch, n_codebooks, -1).transpose(1, 2)


def test_the_special_ids():
    assert (PAD, BOA, EOA, CODE_OFFSET) == (0, 1, 2, 3)


@pytest.mark.parametrize("n_codebooks", [1, 2, 4, 8])
@pytest.mark.parametrize("n_frames", [0, 1, 2, 3, 9])
def test_delaying_equals_the_definition(n_codebooks, n_frames):
    codes, lengths = random_codes(5, n_codebooks, n_frames)
    ids = delay_codes(codes, lengths)
    assert ids.dtype == torch.int64
    assert torch.equal(ids, by_loop(codes, lengths))


@pytest.mark.parametrize("n_codebooks", [1, 2, 4, 8])
@pytest.mark.parametrize("n_frames", [0, 1, 3, 9])
def test_undelaying_gives_the_codes_back(n_codebooks, n_frames):
    codes, lengths = random_codes(4, n_codebooks, n_frames, seed=2)
    for row, ids in enumerate(delay_codes(codes, lengths)):
        assert torch.equal(undelay_codes(ids), codes[row, :, : lengths[row]])


@pytest.mark.parametrize("n_codebooks", [1, 3])
@pytest.mark.parametrize("n_columns", range(12))
def test_a_sequence_that_was_cut_off_gives_its_whole_frames(n_codebooks, n_columns):
    codes, _ = random_codes(1, n_codebooks, 6)
    found = undelay_codes(delay_codes(codes, torch.tensor([6]))[0, :n_columns])
    whole = min(max(n_columns - n_codebooks, 0), 6)
    assert torch.equal(found, codes[0, :, :whole])


def test_columns_up_to_the_last_codebook_behind_the_end_are_enough():
    codes, lengths = random_codes(1, 4, 6)
    ids = delay_codes(codes, lengths)[0]
    first_end = int((ids[:, 0] == EOA).nonzero()[0])
    assert torch.equal(undelay_codes(ids[: first_end + 4]), codes[0])
    assert undelay_codes(ids[: first_end + 3]).shape == (4, 6)
    assert undelay_codes(ids[: first_end + 1]).shape == (4, 4)


def test_special_ids_inside_become_code_0():
    ids = torch.tensor([[1, 1], [8, 1], [9, 2], [7, 0], [2, 12], [2, 2]])
    assert undelay_codes(ids).tolist() == [[5, 6, 4], [0, 0, 9]]


def test_the_first_codebook_ends_the_audio_even_if_others_go_on():
    ids = torch.tensor([[1, 1], [8, 1], [2, 5], [9, 6], [2, 7]])
    assert undelay_codes(ids).tolist() == [[5], [2]]


def test_a_begin_id_inside_is_no_end():
    assert undelay_codes(torch.tensor([[1], [4], [1], [5], [2]])).tolist() == [[1, 0, 2]]


def test_codes_of_a_small_dtype_do_not_overflow():
    codes = torch.full((1, 1, 2), 254, dtype=torch.uint8)
    assert delay_codes(codes, torch.tensor([2]))[0, :, 0].tolist() == [1, 257, 257, 2]


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 0, 3)])
def test_codes_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="codes_BQN"):
        delay_codes(torch.zeros(shape, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


def test_as_many_lengths_as_rows_are_needed():
    with pytest.raises(ValueError, match=r"lengths_B.*\(2,\)"):
        delay_codes(torch.zeros(2, 1, 3, dtype=torch.int64), torch.tensor([3]))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 1), (3, 0)])
def test_ids_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="ids_TQ"):
        undelay_codes(torch.zeros(shape, dtype=torch.int64))
