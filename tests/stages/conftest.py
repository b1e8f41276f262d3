from __future__ import annotations

import pytest

from grpo.runs.stages import STAGES
from tests.tiny_runs import TinyRun, UnslothRun


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> TinyRun:
    """A run of all stages with the embedded model; tests read it and leave it as it is."""
    return TinyRun(tmp_path_factory.mktemp("finished")).stages(*(stage.key for stage in STAGES))


@pytest.fixture(scope="session")
def finished_with_unsloth(tmp_path_factory) -> TinyRun:
    """The same, trained with `--backend unsloth`."""
    return UnslothRun(tmp_path_factory.mktemp("finished_with_unsloth")).stages(*(stage.key for stage in STAGES))
