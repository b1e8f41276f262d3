"""Arrays and a header in one file: every bit comes back, and a file that cannot be used is one line."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.building_blocks.tensor_files import SavedFileError, read_arrays, read_header, write_arrays

ARRAYS = {
    "number": np.array(0.1),
    "cut": np.arange(12.0).reshape(3, 4)[:, ::2],
    "none": np.zeros((0, 3)),
    "names": np.array([["AAPL", "ä"], ["", "BRK.B"]]),
    "counts": np.array([1, -2]),
}
HEADER = {"dof": float("inf"), "sizes": [1, 2], "name": "x"}


def test_arrays_text_and_header_come_back(tmp_path):
    write_arrays(tmp_path / "file", ARRAYS, HEADER)
    arrays, header = read_arrays(tmp_path / "file")
    assert header == read_header(tmp_path / "file") == HEADER
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype.kind == array.dtype.kind
        assert arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)


def test_equal_states_are_equal_files(tmp_path):
    for name in "abcdef":  # safetensors orders its own entries by chance
        write_arrays(tmp_path / name, ARRAYS, HEADER)
    assert len({(tmp_path / name).read_bytes() for name in "abcdef"}) == 1


@pytest.mark.parametrize("content", [None, b"", b"nothing", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    for read in (read_arrays, read_header):
        with pytest.raises(SavedFileError, match="file cannot be read as a saved state") as refused:
            read(tmp_path / "file")
        assert "\n" not in str(refused.value)
