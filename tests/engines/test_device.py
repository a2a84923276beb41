"""The errors of a GPU that is missing or too small name the cure."""

import subprocess
import sys
from typing import Any

import pytest
from conftest import on_shim
from test_cuda import hyper_of, popular_ratings

from funksvd import FunkSVD, cli
from funksvd.engines.cuda import CudaEngine
from funksvd.engines.device import DeviceError


def fit(device: str = "cuda", **params: Any) -> FunkSVD:
    """Fit a small model on a GPU."""
    options = {"n_factors": 4, "n_epochs": 1, "learning_rate": 0.02, "device": device}
    model = FunkSVD(**options | params)
    return model.fit(([0, 1, 1], [0, 0, 1]), [1.0, 2.0, 3.0])


def test_without_cupy_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match=r"pip install \"funksvd\[cuda12\]\""):
        fit()


@pytest.mark.parametrize(
    "params", [{}, {"batch_size": 2, "solver": "adam"}, {"schedule": "hogwild", "dtype": "float16"}]
)
def test_without_a_device_the_driver_is_quoted(monkeypatch, params) -> None:
    on_shim(monkeypatch, devices=0)
    with pytest.raises(
        DeviceError, match=r"driver version is insufficient.*; install NVIDIA's driver"
    ):
        fit(**params)


def test_the_command_line_tells_it_in_one_line(
    monkeypatch,
    capsys,
    tmp_path,
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    (tmp_path / "r.csv").write_text("user,item,rating\n1,1,3\n1,2,4\n2,1,5\n")
    assert (
        cli.main(
            ["train", str(tmp_path / "r.csv"), "--device", "cuda", "-o", str(tmp_path / "m.npz")]
        )
        == 2
    )
    assert capsys.readouterr().err.startswith(
        "funksvd: error: device='cuda' needs CuPy: pip install"
    )


def test_a_device_number_that_is_not_there(monkeypatch) -> None:
    on_shim(monkeypatch, devices=2)
    with pytest.raises(DeviceError, match=r"device='cuda:2': this machine has 2 GPUs"):
        fit("cuda:2")


def test_without_nvrtc_the_ctk_extra_is_named(shim, monkeypatch) -> None:
    def absent() -> None:
        raise RuntimeError("libnvrtc.so.12 not found")

    monkeypatch.setattr(shim.cuda.nvrtc, "getVersion", absent)
    with pytest.raises(DeviceError, match=r"\[ctk\]"):
        fit()


def test_cards_before_maxwell_are_refused(monkeypatch) -> None:
    on_shim(monkeypatch, capability="37")
    with pytest.raises(DeviceError, match="compute capability 37"):
        fit()


def test_a_card_too_small_says_both_numbers(monkeypatch) -> None:
    on_shim(monkeypatch, memory=4096)
    with pytest.raises(DeviceError, match="lower n_factors"):
        CudaEngine(popular_ratings(), None, hyper_of(100), seed=1)


@pytest.mark.parametrize(
    ("name", "value"), [("device", "cuda:x"), ("dtype", "float64"), ("n_factors", 513)]
)
def test_values_that_a_gpu_does_not_know_are_refused(name, value) -> None:
    """Parameters that mean nothing on a GPU are tested with those of other engines."""
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got "):
        fit(**{name: value})


def test_import_leaves_cupy_alone() -> None:
    code = (
        "import sys; sys.modules['cupy'] = None; import funksvd; "
        "assert 'funksvd.engines.cuda' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
