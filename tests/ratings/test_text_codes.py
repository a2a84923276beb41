"""The codes that the kernel gives to equal texts."""

import naive
import numpy as np
import pytest

from funksvd.ratings import _texts


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_text_codes_equal_a_dict(dtype):
    rng = np.random.default_rng(0)
    table = _texts.TextCodes()
    codes = []
    texts = []
    for n in (0, 1, 31, 32, 33, 5000, 5000):  # one table for all, from a few slots to many
        batch = ["", "user-1", "user-12"]
        for _ in range(n):
            length = rng.integers(0, 40)
            batch.append(rng.bytes(20).hex()[:length])
        batch += rng.permutation(texts[: len(texts) // 2]).tolist()
        lengths = [len(text) for text in batch]
        offsets = np.cumsum([0, *lengths]).astype(dtype)
        data = np.frombuffer("".join(batch).encode(), np.uint8)
        out = np.empty(len(batch), np.int32)
        table.encode(offsets, data, out)
        codes += out.tolist()
        texts += batch
    assert (codes, table.texts()) == naive.text_codes(texts)


def test_text_codes_refuse_offsets_beyond_the_texts():
    offsets = np.array([0, 2], np.int32)
    data = np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match="do not fit"):
        _texts.TextCodes().encode(offsets, data, np.empty(1, np.int32))


@pytest.mark.parametrize("offsets", [[0, 6, 1, 6], [0, 2_000_000_000, 5, 6], [-1, 2, 3, 4]])
def test_text_codes_refuse_offsets_that_do_not_rise(offsets):
    data = np.zeros(6, np.uint8)
    with pytest.raises(ValueError, match="do not fit"):
        _texts.TextCodes().encode(np.array(offsets, np.int32), data, np.empty(3, np.int32))
