"""The x86-64 level of a CPU: all features that a compiler may use there must be present."""

import numpy as np
import pytest

from funksvd.machine.kernels import kernels

cpu = kernels("machine._cpu", np.float32, "baseline")


def all_features(value):
    return {level: dict.fromkeys(names, value) for level, names in cpu.features().items()}


def test_all_features_are_level_4():
    assert cpu.level(all_features(True)) == 4
    assert cpu.level(all_features(False)) == 0


@pytest.mark.parametrize("missing", ["LZCNT", "MOVBE", "F16C", "AVX2", "YMM kept"])
def test_a_feature_that_is_missing_at_level_3_means_level_0(missing):
    features = all_features(True)
    features[3][missing] = False
    assert cpu.level(features) == 0


@pytest.mark.parametrize("missing", ["AVX512VL", "ZMM kept"])
def test_a_feature_that_is_missing_at_level_4_means_level_3(missing):
    features = all_features(True)
    features[4][missing] = False
    assert cpu.level(features) == 3


def test_the_features_are_those_that_linux_reports():
    names = {"LZCNT": "abm", "LAHF": "lahf_lm", "CMPXCHG16B": "cx16", "SSE3": "pni"}
    try:
        with open("/proc/cpuinfo") as file:
            flags = next(line for line in file if line.startswith("flags")).split()
    except (OSError, StopIteration):
        pytest.skip("only Linux on x86-64 lists the features of the CPU")
    for features in cpu.features().values():
        for name, has in features.items():
            if not name.endswith("kept") and name != "OSXSAVE":
                told = names.get(name, name.lower().replace(".", "_"))
                assert has == (told in flags), name
