"""Checkpoints whose content is changed, as an attacker or a damaged disk would."""

import io
import json
import zipfile

import numpy as np


def content_of(path):
    """Return (JSON, arrays by name) of an npz file of funksvd."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("meta").tobytes()), arrays


def write(path, meta, arrays):
    """Write an npz file of funksvd with this JSON and these arrays."""
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in {"meta": text, **arrays}.items():
            out = io.BytesIO()
            np.lib.format.write_array(out, np.asarray(array), version=(1, 0))
            archive.writestr(f"{name}.npy", out.getvalue())
