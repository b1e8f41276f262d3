"""8-mers of DNA scored by how strongly a transcription factor binds them, and a synthetic stand-in.

TFBind8 (Barrera et al. 2016) is a table of all 4^8 = 65,536 sequences with a score in [0, 1]. It is not shipped: who
has it gives its file. `read_table` takes the two arrays of design-bench (tf_bind_8-x-0.npy with tokens 0 to 3 in
[N, 8], tf_bind_8-y-0.npy beside it) or a CSV with the columns sequence (letters ACGT) and score. Every 8-mer must be
there; one that comes twice must have one score. The file's SHA-256 is kept with every training, and compared with
the one that is expected where that is given.

`motif_landscape` is a made-up table of the same form for tests and trials. It says nothing about TFBind8.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baselines.gflownet.toys.tree import TableTask
from preprocessing.errors import UserError
from preprocessing.seeds import generator

LETTERS = "ACGT"
NUM_TOKENS, NUM_STEPS = 4, 8
NUM_SEQUENCES = NUM_TOKENS**NUM_STEPS


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of all 8-mers.

    Attributes:
        scores: [65,536] float64, 0 or more, the sequences in lexicographic order of their tokens.
        sha256: of the file of the scores.
    """

    scores: np.ndarray
    sha256: str


def read_table(path: Path, sha256: str | None = None) -> ScoreTable:
    """Read and check a table.

    Args:
        path: `...-y-0.npy` with `...-x-0.npy` beside it, or a CSV.
        sha256: what the file's checksum must be; null: any.

    Raises:
        UserError: the file is missing, has another checksum, or does not hold every 8-mer with one score.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path} does not exist. TFBind8 is not shipped: give tf_bind_8-y-0.npy of design-bench (with "
            "tf_bind_8-x-0.npy beside it) or a CSV with the columns sequence and score, or use --task motifs."
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise UserError(f"{path} has the SHA-256 {found}, not {sha256}; download it again or correct --table-sha256.")
    tokens, scores = _read_csv(path) if path.suffix == ".csv" else _read_arrays(path)
    rows = tokens @ (NUM_TOKENS ** np.arange(NUM_STEPS - 1, -1, -1))
    table = np.full(NUM_SEQUENCES, np.nan)
    table[rows] = scores
    if np.isnan(table).any():
        raise UserError(f"{path} holds {(~np.isnan(table)).sum()} of the {NUM_SEQUENCES} 8-mers; all are needed.")
    # A double entry overwrote the first one, so a difference shows in what is read back.
    differ = np.flatnonzero(table[rows] != scores)
    if len(differ):
        raise UserError(f"{path}: {spell(tokens[differ[0]])} comes twice, with different scores.")
    if not np.all(np.isfinite(table) & (table >= 0)) or table.max() <= 0:
        raise UserError(f"{path}: scores must be finite and 0 or more, and some above 0.")
    return ScoreTable(table, found)


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    other = path.with_name(path.name.replace("-y-", "-x-"))
    if other == path or not other.is_file():
        raise UserError(f"{path}: its sequences must lie beside it, scores in ...-y-0.npy, sequences in ...-x-0.npy.")
    try:
        tokens, scores = np.load(other, allow_pickle=False), np.load(path, allow_pickle=False)
        scores = np.asarray(scores, dtype=np.float64).reshape(-1)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} or {other.name} is not an array ({' '.join(str(error).split())}).") from error
    integers = np.issubdtype(tokens.dtype, np.integer)
    if tokens.shape != (len(scores), NUM_STEPS) or not integers or tokens.min() < 0 or tokens.max() >= NUM_TOKENS:
        raise UserError(f"{other}: tokens must be integers 0 to 3 of shape [{len(scores)}, 8]; got {tokens.shape}.")
    return tokens.astype(np.int64), scores


def _read_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    tokens, scores = [], []
    with path.open(newline="") as file:
        for row in (reader := csv.DictReader(file)):
            letters = row.get("sequence") or ""
            try:
                score = float(row.get("score") or "")
            except ValueError:
                score = np.nan
            if len(letters) != NUM_STEPS or set(letters) - set(LETTERS) or not np.isfinite(score):
                raise UserError(f"{path}: line {reader.line_num} needs 8 letters of ACGT and a score.")
            tokens.append([LETTERS.index(letter) for letter in letters])
            scores.append(score)
    if not tokens:
        raise UserError(f"{path} holds no row with the columns sequence and score.")
    return np.array(tokens), np.array(scores)


def spell(tokens: np.ndarray) -> str:
    """Tokens as letters."""
    return "".join(LETTERS[token] for token in tokens)


def table_task(name: str, table: ScoreTable, *, floor: float = 1e-3) -> TableTask:
    """R = score, at least `floor`: a sequence with the score 0 would have no flow at all, and log R no value."""
    return TableTask(name, np.log(np.maximum(table.scores, floor)), NUM_TOKENS, NUM_STEPS)


def motif_landscape(seed: int, *, num_motifs: int = 5, sharpness: float = 1.0) -> ScoreTable:
    """A synthetic landscape: a sequence scores by its Hamming distance to the nearest of some random motifs.

    score = exp(-sharpness x distance), in (0, 1]. It is not TFBind8.
    """
    digits = np.arange(NUM_SEQUENCES)[:, None] // NUM_TOKENS ** np.arange(NUM_STEPS - 1, -1, -1) % NUM_TOKENS
    motifs = generator(seed).integers(NUM_TOKENS, size=(num_motifs, NUM_STEPS))
    distance = (digits[:, None] != motifs).sum(axis=-1).min(axis=1)
    scores = np.exp(-sharpness * distance)
    return ScoreTable(scores, hashlib.sha256(scores.tobytes()).hexdigest())
