"""Sequence files: what is written is read back to the bit, and everything else is refused where it stands."""

from __future__ import annotations

import numpy as np
import pytest

from preprocessing.errors import UserError
from preprocessing.sequence_files import read_sequences, write_sequences


def test_reads_one_sequence_a_line(tmp_path):
    file = tmp_path / "real_data.txt"
    file.write_text("1 -2.5 3e-2\n  4   +.5 6. \n")
    np.testing.assert_array_equal(read_sequences(file), [[1, -2.5, 0.03], [4, 0.5, 6]])
    file.write_text("1 2\r\n3 4")
    np.testing.assert_array_equal(read_sequences(file), [[1, 2], [3, 4]])


def test_round_trip_is_exact(tmp_path):
    values = np.random.default_rng(0).standard_normal((200, 20)) * 10.0 ** np.arange(-10, 10)
    values[0, :4] = [0.1 + 0.2, -0.0, np.finfo(float).max, np.nextafter(0, 1)]
    write_sequences(tmp_path / "made" / "samples.txt", values)
    read = read_sequences(tmp_path / "made" / "samples.txt")
    assert read.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "content, place, reason",
    [
        ("1 2\n3 4 5\n", "line 2, column 5", "3 values, but line 1 has 2"),
        ("1 2 3\n4 5\n", "line 2, column 4", "2 values, but line 1 has 3"),
        ("1 2\n\n3 4\n", "line 2, column 1", "the line is empty"),
        ("1 2\n3 4\n\n", "line 3, column 1", "the line is empty"),
        ("open close\n1 2\n", "line 1, column 1", "'open' is no finite number (the file has no header)"),
        ("1 2\n3 four\n", "line 2, column 3", "'four' is no finite number"),
        ("1 2\n3 nan\n", "line 2, column 3", "'nan' is no finite number"),
        ("-inf 2\n3 4\n", "line 1, column 1", "'-inf' is no finite number"),
        ("1 2\n3 1e999\n", "line 2, column 3", "'1e999' is no finite number"),
        ("1 2\n3 1.2.3\n", "line 2, column 3", "'1.2.3' is no finite number"),
        ("1 2\n1_000 4\n", "line 2, column 1", "'1_000' is no finite number"),
        ("1 2\n3 0x1p3\n", "line 2, column 3", "'0x1p3' is no finite number"),
        ("1 2\n3 \u0664\n", "line 2, column 3", "'\u0664' is no finite number"),
        ("1 2\n3, 4\n", "line 2, column 2", "not by commas"),
        ("1;2\n", "line 1, column 2", "not by semicolons"),
        ("1\t2\n", "line 1, column 2", "not by tabs"),
    ],
)
def test_refuses_anything_else_where_it_stands(tmp_path, content, place, reason):
    file = tmp_path / "real_data.txt"
    file.write_text(content)
    with pytest.raises(UserError) as refused:
        read_sequences(file)
    message = str(refused.value)
    assert str(file) in message
    assert f"{place}: " in message
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xff\xfe1 2", None])
def test_refuses_a_file_without_sequences(tmp_path, content):
    file = tmp_path / "real_data.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_sequences(file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("sequences", [np.zeros(3), np.zeros((0, 3)), np.array([[1.0, np.nan]]), np.zeros((2, 2, 2))])
def test_does_not_write_what_could_not_be_read(tmp_path, sequences):
    with pytest.raises(ValueError):
        write_sequences(tmp_path / "samples.txt", sequences)
    assert list(tmp_path.iterdir()) == []
