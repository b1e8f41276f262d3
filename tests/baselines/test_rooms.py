"""The rooms of `baselines` import one way, as the table says; imports within functions count too."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import pytest

from tests.test_imports import imports_of, modules

# A room may import from itself and from rooms on lower floors. A room is named by its folder: `gail` holds the modules
# of that folder alone, `gail.standalone` is another room. What nothing imports, `__main__`, stands above all of them.
FLOORS = [
    {"building_blocks"},
    {"statistical", "foundation", "neural", "analyze_distributions"},
    {"seqgan", "gail", "decision_transformer", "gflownet.losses"},
    {"gflownet", "trader"},
    {"gail.standalone", "seqgan.standalone", "seqgan.toys", "gflownet.toys"},
    {"gflownet.standalone"},
]
MODULES = {name.removeprefix("baselines."): file for name, file in modules().items() if name.startswith("baselines.")}
ROOMS = set().union(*FLOORS)


def room_of(module: str) -> str:
    """The folder of a module; of a package, the package itself."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def imported_by(module: str) -> set[str]:
    found = {name.removeprefix("baselines.") for name in imports_of(MODULES[module]) if name.startswith("baselines.")}
    return {name for name in found if name in MODULES}


def floor_of(room: str) -> int:
    [floor] = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    return floor


def test_every_module_stands_in_a_room():
    assert {room_of(module) for module in MODULES} == ROOMS


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__")])
def test_a_room_imports_from_lower_floors_alone(module):
    room = room_of(module)
    for imported in imported_by(module):
        other = room_of(imported)
        assert not imported.endswith("__main__"), f"{module} imports the command {imported}"
        assert other == room or floor_of(other) < floor_of(room), f"{module} imports {imported}, which is not below it"


def test_modules_import_in_no_circle():
    try:
        TopologicalSorter({module: imported_by(module) - {module} for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
