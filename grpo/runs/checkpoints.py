"""Which training checkpoint can be resumed from."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path

logger = logging.getLogger("grpo")

# The Trainer's own files, and the folders that DeepSpeed (global_step) and FSDP write in their place
OPTIMIZER_PATTERNS = ("optimizer*", "global_step*")
WEIGHTS_PATTERNS = ("adapter_model*", "model*", "pytorch_model*", "global_step*")


def newest_checkpoint(folder: Path) -> Path | None:
    """The complete `checkpoint-N` with the largest N under a folder, or None.

    Checkpoints that a killed process or a full disk has cut short are logged and passed by.
    """
    numbers = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")}
    found = [path for path, number in numbers.items() if number.isdigit()]
    # By number: as text, checkpoint-9 would come after checkpoint-10.
    for path in sorted(found, key=lambda path: int(numbers[path]), reverse=True):
        flaw = _flaw(path)
        if flaw is None:
            return path
        logger.warning("ignoring %s: %s", path, flaw)
    return None


def _flaw(folder: Path) -> str | None:
    """What is missing or cut short in a Trainer checkpoint; None if nothing is."""
    try:
        json.loads((folder / "trainer_state.json").read_text())["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return "trainer_state.json is missing or cut short"
    if not any(path for pattern in OPTIMIZER_PATTERNS for path in folder.glob(pattern)):
        return "the optimizer's state is missing"
    if not any(path for pattern in WEIGHTS_PATTERNS for path in folder.glob(pattern)):
        return "the weights are missing"
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".safetensors" and not _is_whole_safetensors(path):
            return f"{path.name} is cut short"
        # torch.save writes a zip file, whose directory comes last
        if path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path):
            return f"{path.name} is cut short"
    return None


def _is_whole_safetensors(path: Path) -> bool:
    """Whether the file is as long as its header says: 8 bytes of header length, the header, the tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            # The 8 bytes of a damaged file may say any length; reading more than the file has would ask for that much
            # memory.
            header = json.loads(file.read(min(length, path.stat().st_size)))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return path.stat().st_size == 8 + length + max(ends, default=0)
