import numpy as np
import pytest
from naive import block

from funksvd import FunkSVD, Ratings, load
from funksvd.engine import CpuEngine, kernels


def some(n=3000, n_users=80, n_items=50, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, n_users, n), rng.integers(0, n_items, n), rng.normal(3.5, 1, n)


@pytest.mark.parametrize("k", [1, 3, 8, 20, 32, 100, 257])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
def test_kernel_equals_naive(k, dtype, tolerance):
    grid = Ratings.from_arrays(*some()).grid(64, dtype)
    engine = CpuEngine(grid, k, dtype=dtype)
    for b in range(grid.n_bands**2):
        y = b % grid.n_bands
        rows = slice(grid.bands[y] + y, grid.bands[y + 1] + y + 1)
        runs = slice(grid.block_runs[b], grid.block_runs[b + 1])
        part = slice(grid.block_start[b], grid.block_start[b + 1] + 8)
        fast = [engine.run_factors, engine.run_biases, engine.factors[rows], engine.biases[rows]]
        slow = [a.copy() for a in fast]
        data = (grid.run_row[runs], grid.run_end[runs], grid.index[part], grid.rating[part], engine.mean)
        got = kernels(dtype).block(*fast, *data, True, 0.02, 0.05, 0.01, 0.03)
        want = block(*slow, *data, 0.02, 0.05, 0.01, 0.03)
        assert got == pytest.approx(want, rel=tolerance)
        for a, c in zip(fast, slow, strict=True):
            np.testing.assert_allclose(a, c, rtol=tolerance, atol=tolerance)


def test_same_bytes_for_any_threads_and_row_order(tmp_path):
    users, items, ratings = some(300_000, 2000, 900)
    shuffled = np.random.default_rng(1).permutation(len(users))
    files = []
    for n_jobs, order in ((1, slice(None)), (2, slice(None)), (7, shuffled)):
        model = FunkSVD(8, 3, random_state=0, n_jobs=n_jobs)
        model.fit((users[order], items[order]), ratings[order], validation_split=0.1)
        model.save(tmp_path / "m.npz")
        files.append((tmp_path / "m.npz").read_bytes())
    assert files[0] == files[1] == files[2]


def test_transposed_input_gives_the_transposed_model():
    users, items, ratings = some()
    a = FunkSVD(5, 3, random_state=0).fit((users, items), ratings)
    b = FunkSVD(5, 3, random_state=0).fit((items, users), ratings)
    assert (a.user_factors_ == b.item_factors_).all()
    assert (a.item_biases_ == b.user_biases_).all()


def test_save_and_load_predict_the_same(tmp_path):
    users, items, ratings = some()
    model = FunkSVD(5, 3, random_state=0).fit((users.astype(str), items), ratings)
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    pairs = (users.astype(str), items)
    assert (again.predict(pairs) == model.predict(pairs)).all()
    with pytest.raises(TypeError, match="user ids are int"):
        again.predict((users, items))


def test_bad_input_is_refused():
    users, items, ratings = some()
    with pytest.raises(ValueError, match="equal lengths"):
        FunkSVD().fit((users[1:], items), ratings)
    ratings[7] = np.nan
    with pytest.raises(ValueError, match="first at index 7"):
        FunkSVD().fit((users, items), ratings)
    with pytest.raises(ValueError, match="n_factors must be an int >= 1, got 0"):
        FunkSVD(n_factors=0).fit((users, items), ratings)
