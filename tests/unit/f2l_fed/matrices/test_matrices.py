"""Large matrices in blocks: parts, workspaces on a disk, jobs in other processes, Gram matrices."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from safetensors.torch import load_file

from f2l_fed.errors import RoundError
from f2l_fed.matrices import blocks
from f2l_fed.matrices.columns import Stored
from f2l_fed.matrices.gram import gram_matrix
from f2l_fed.matrices.sketch import sketch
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace, file_of, packed
from f2l_fed.prior.ridge import fit_ridge
from tests.support.small import rng


@pytest.mark.parametrize(("rows", "columns"), [(3, 1), (3, 50), (3, 1600), (7, 1601), (2000, 5)])
def test_parts_are_few_and_make_up_the_whole(monkeypatch, rows, columns):
    monkeypatch.setattr(blocks, "_BLOCK", 300)
    parts = blocks.parts(rows, columns)
    assert len(parts) <= 16
    assert [n for part in parts for n in range(part.start, part.stop)] == list(range(columns))
    for part in parts:
        within = [n for one in blocks.blocks(rows, part) for n in range(one.start, one.stop)]
        assert within == list(range(part.start, part.stop))
        assert all(rows * (b.stop - b.start) <= max(300, rows) for b in blocks.blocks(rows, part))


def test_nothing_has_no_parts():
    assert blocks.parts(5, 0) == []
    assert list(blocks.blocks(0, 3)) == [slice(0, 3)]


def test_a_matrix_of_a_folder_lies_in_it_and_of_none_in_memory(tmp_path):
    work = Workspace(folder=tmp_path)
    matrix = work.empty(4, 5)
    matrix[:] = torch.arange(20.0).view(4, 5)
    (file,) = tmp_path.iterdir()
    assert file_of(matrix) == file
    assert (
        file_of(matrix.view(2, 2, 5))
        is None
        is file_of(matrix[1:])
        is file_of(matrix.flatten())
        is file_of(torch.ones(3))
    )
    assert torch.equal(load_file(file)["w"], matrix)
    work.free(matrix)
    assert not list(tmp_path.iterdir())
    assert IN_MEMORY.empty(4, 5).untyped_storage().filename is None
    assert work.empty(0, 5).shape == (0, 5)


def test_a_disk_without_room_is_an_error_and_not_the_end_of_the_process(tmp_path):
    with pytest.raises(OSError, match=r"(No space left|too large)"):
        Workspace(folder=tmp_path).empty(2**30, 2**24)


def test_of_a_mapped_matrix_only_the_name_travels_and_views_stay_views(tmp_path):
    matrix = Workspace(folder=tmp_path).empty(300, 1000)
    matrix[:] = torch.randn(300, 1000, generator=rng())
    data = packed((Stored(matrix[10:20, ::2]), matrix.T))
    assert len(data) < 2000
    stored, turned = pickle.loads(data)
    assert torch.equal(stored.matrix, matrix[10:20, ::2])
    turned[0, 10] = 7
    assert matrix[10, 0] == 7 == stored.matrix[0, 0]
    file_of(matrix).unlink()
    with pytest.raises(RoundError, match="does not see the records"):
        pickle.loads(data)
    assert not list(tmp_path.iterdir())


def run(data):
    job, part, given = pickle.loads(data)
    return job(part, *given)


@pytest.mark.parametrize(("n", "p"), [(20, 90), (60, 30)])
def test_jobs_in_another_process_give_the_same_bits(tmp_path, monkeypatch, n, p):
    x, y = torch.randn(n, p, generator=rng()), torch.randn(n, 200, generator=rng(1))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:

        def elsewhere(job, some, *given):
            waiting = [pool.submit(run, packed((job, part, given))) for part in some]
            return [one.result() for one in waiting]

        work = Workspace(folder=tmp_path, each=elsewhere)
        fit = fit_ridge(x, y, group=2, rank=9, work=work)
        held_out = fit.held_out(y, work=work)
    here = fit_ridge(x, y, group=2, rank=9)
    assert torch.equal(held_out, here.held_out(y))
    for name in ("x_mean", "y_mean", "left", "right"):
        assert torch.equal(getattr(fit.map, name), getattr(here.map, name)), name
    assert fit.map.right.untyped_storage().filename


@pytest.mark.parametrize(("n", "p"), [(9, 200), (200, 9)])
@pytest.mark.parametrize("centre", [True, False])
def test_the_gram_matrix_is_that_of_the_smaller_side(monkeypatch, n, p, centre):
    x, other, row = (torch.randn(k, p, generator=rng(k)) + 3 for k in (n, n, 1))
    monkeypatch.setattr(blocks, "_BLOCK", 100)
    found = gram_matrix(Stored(x, other, row[0]), centre=centre)
    rows = (x - (row + other)).double()
    mean = rows.mean(0) if centre else torch.zeros(p).double()
    centred = rows - mean
    assert found.of_rows == (n <= p)
    expected = centred @ centred.T if n <= p else centred.T @ centred
    torch.testing.assert_close(found.matrix, expected)
    torch.testing.assert_close(found.mean, mean)


@pytest.mark.parametrize("centre", [True, False])
def test_a_sketch_keeps_the_distances_of_rows(monkeypatch, centre):
    draws = rng(2)
    y = torch.randn(300, 12, generator=draws) @ torch.randn(12, 500, generator=draws)
    y = y + 3 + 0.1 * torch.randn(300, 500, generator=draws)
    monkeypatch.setattr(blocks, "_BLOCK", 300 * 7)
    found, mean = sketch(Stored(y), 30, 20, centre=centre, work=IN_MEMORY)
    whole = y.double() - (y.double().mean(0) if centre else 0)
    torch.testing.assert_close(mean, y.double().mean(0) if centre else torch.zeros(500).double())
    assert found.shape == (300, 50)
    ratio = found.norm(dim=1) / whole.norm(dim=1)
    assert 0.99 < float(ratio.min()) <= float(ratio.max()) < 1.01
    apart = (found[:150] - found[150:]).norm(dim=1) / (whole[:150] - whole[150:]).norm(dim=1)
    assert 0.99 < float(apart.min()) <= float(apart.max()) < 1.01
