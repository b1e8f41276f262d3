"""What every training of the baselines owes: killed as often as one likes it ends with the same bits, and it refuses
to go on with other settings or other data."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.neural.checkpoints import save_training
from baselines.neural.training_run import Measured, Stage, TrainingRun, mean_of
from tests.baselines.training_loops import LOOPS, Outcome


class Killed(BaseException):
    """Nothing of the training may catch it."""


@cache
def unbroken(name: str) -> Outcome:
    with TemporaryDirectory() as folder:
        return LOOPS[name](Path(folder) / "run")


@pytest.fixture(params=LOOPS)
def loop(request) -> str:
    if request.param == "gail":
        pytest.importorskip("sb3_contrib")
    return request.param


def kill_at_save(monkeypatch, number: int) -> list[int]:
    """Every training dies when it is about to save for that time; gives how often it saved, as its length."""
    saved: list[int] = []
    save = TrainingRun.save

    def dying(self: TrainingRun) -> None:
        if len(saved) + 1 == number:
            raise Killed
        save(self)
        saved.append(1)

    monkeypatch.setattr(TrainingRun, "save", dying)
    return saved


def test_killed_after_every_save_it_ends_as_if_it_had_not_been(loop, tmp_path, monkeypatch):
    expected, expected_curve = unbroken(loop)
    kills = 0
    while True:
        torch.manual_seed(kills)  # whatever the caller's random numbers are
        before = torch.get_rng_state()
        with monkeypatch.context() as patch:
            kill_at_save(patch, 2)
            try:
                found, curve = LOOPS[loop](tmp_path / "run")
                break
            except Killed:
                kills += 1
        assert torch.equal(torch.get_rng_state(), before)
    assert kills >= 3
    assert curve == expected_curve
    assert list(found) == list(expected)
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("changed", ["setting", "data"])
def test_other_settings_or_data_are_refused_and_the_right_ones_go_on(changed, loop, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at_save(patch, 3)
        with pytest.raises(Killed):
            LOOPS[loop](tmp_path / "run")
    with pytest.raises(SavedFileError, match=r"\.safetensors is of a training with other .*; restore that") as refused:
        LOOPS[loop](tmp_path / "run", changed)
    assert "\n" not in str(refused.value)
    found, _ = LOOPS[loop](tmp_path / "run")
    assert all(torch.equal(tensor, unbroken(loop)[0][name]) for name, tensor in found.items())


def test_another_setting_or_data_is_another_training(loop, tmp_path):
    for changed in ("setting", "data"):
        found, _ = LOOPS[loop](tmp_path / changed, changed)
        assert any(not torch.equal(tensor, unbroken(loop)[0][name]) for name, tensor in found.items())


# The run itself, on one number


class Line:
    """Adds its step to a number; a look offers the number itself as the loss."""

    def __init__(self, file: Path, losses: list[float], *, patience: int | None = 2, **identity: object) -> None:
        self.network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.network.weight)
        self.losses, self.calls = losses, []
        self.run = TrainingRun(file, identity, modules={"line": self.network}, optimizers={}, patience=patience)

    def stage(self, name: str, steps: int, look_every: int) -> Stage:
        return Stage(
            name=name, steps=steps, look_every=look_every, step=self.step, look=self.look,
            begin=lambda: self.calls.append(f"begin {name}"), end=lambda: self.calls.append(f"end {name}"),
        )  # fmt: skip

    def step(self, number: int) -> Measured:
        self.network.weight.data += 1
        return {"number": float(number), "twice": 2.0 * number}

    def look(self, step: int, recent: object) -> str:
        self.run.best.offer(self.losses[int(self.network.weight) - 1], step, self.network)
        self.run.curve.add("line", step, **mean_of(recent))  # type: ignore[arg-type]
        return ""


def test_a_stage_looks_now_and_then_and_at_its_end(tmp_path):
    line = Line(tmp_path / "a", losses=[0.0] * 20, patience=None)
    assert line.run.train([line.stage("one", 5, 2), line.stage("two", 2, 9)], title="line")
    assert line.run.curve.rows == [
        {"phase": "line", "step": 2, "number": 0.5, "twice": 1.0},
        {"phase": "line", "step": 4, "number": 2.5, "twice": 5.0},
        {"phase": "line", "step": 5, "number": 4.0, "twice": 8.0},
        {"phase": "line", "step": 2, "number": 0.5, "twice": 1.0},
    ]
    assert line.calls == ["begin one", "end one", "begin two", "end two"]
    assert line.run.done == {"one": 5, "two": 2}
    again = Line(tmp_path / "a", losses=[])
    assert again.run.resume()
    assert not again.run.train([again.stage("one", 5, 2), again.stage("two", 2, 9)], title="line")
    assert again.calls == []
    assert again.network.weight.item() == 7


def test_a_stage_ends_where_the_loss_no_longer_falls_and_the_next_one_begins_anew(tmp_path):
    losses = [3.0, 1.0, 2.0, 2.0, 0.5, 4.0, 4.0, 0.0]
    line = Line(tmp_path / "a", losses, patience=2)
    line.run.train([line.stage("one", 100, 1), line.stage("two", 100, 1)], title="line")
    assert line.run.done == {"one": 4, "two": 3}  # steps 2 and 5 were the best, each followed by two that were not
    assert (line.run.best.loss, line.run.best.step) == (0.5, 1)
    line.run.best.restore(line.network)
    assert line.network.weight.item() == 5


def test_a_paused_training_goes_on_in_the_same_process(tmp_path):
    line = Line(tmp_path / "a", losses=[0.0] * 20, patience=None)
    stages = [line.stage("one", 4, 2)]
    line.run.train(stages, title="line", pause=lambda: True)
    assert line.run.done == {"one": 2}
    line.run.train(stages, title="line")
    assert line.run.finished == ["one"]
    assert line.calls == ["begin one", "end one"]


def test_a_refusal_names_what_differs(tmp_path):
    first = Line(tmp_path / "a", [0.0], rate=0.1, model={"width": 8, "trunk": "mlp"}, sizes=(1, 2), folder=Path("x"))
    first.run.save()
    same = Line(tmp_path / "a", [], rate=0.1, model={"width": 8, "trunk": "mlp"}, sizes=(1, 2), folder=Path("x"))
    assert same.run.resume()
    other = Line(tmp_path / "a", [], rate=0.2, model={"width": 16, "trunk": "transformer"}, sizes=(1, 2), folder="x")
    with pytest.raises(SavedFileError) as refused:
        other.run.resume()
    named = "rate (0.1, not 0.2), model.width (8, not 16), model.trunk;"
    assert f"is of a training with other {named} restore that" in str(refused.value)
    many = Line(tmp_path / "a", [], **{f"setting_{number}": number for number in range(20)})
    with pytest.raises(SavedFileError, match=r"setting_5 and 19 more; restore"):
        many.run.resume()


def test_a_checkpoint_of_something_else_is_one_line(tmp_path):
    save_training(tmp_path / "a", modules={}, optimizers={}, progress={"steps": 3})
    with pytest.raises(SavedFileError, match="a is of another training, without identity; delete it"):
        Line(tmp_path / "a", []).run.resume()
    (tmp_path / "a").write_bytes(b"nothing")
    with pytest.raises(SavedFileError, match="a cannot be read as a saved state"):
        Line(tmp_path / "a", []).run.resume()
