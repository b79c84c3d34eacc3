"""The ways back, and the store against a model of it in NumPy."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from labelled import make_project, scene
from terrazzo.errors import StaleRevisionError, UsageError
from terrazzo.project import open_project
from terrazzo.project.operations import Operation
from terrazzo.project.tiles import TILE

A = "photos/a.png"


def test_undo_and_redo_work_in_the_next_session_as_in_the_last(tmp_path: Path) -> None:
    with make_project(tmp_path) as project:
        hashes = [project.write_mask(A, scene() * 0 + value).tree_hash for value in (1, 2, 3)]
    with open_project(tmp_path / "street.db") as project:
        assert project.undo(A).tree_hash == hashes[1]
        assert project.undo(A).tree_hash == hashes[0]
    with open_project(tmp_path / "street.db") as project:
        assert project.redo(A).tree_hash == hashes[1]
        assert project.undo(A).tree_hash == hashes[0]
        project.undo(A)
        assert (project.read_mask(A) == 0).all()
        with pytest.raises(UsageError, match="nothing to undo"):
            project.undo(A)
        assert [project.redo(A).tree_hash for _ in range(3)] == hashes
        with pytest.raises(UsageError, match="nothing to redo"):
            project.redo(A)
        assert len(project.revisions(A)) == 11  # nothing was taken out of the history


def test_what_is_drawn_after_an_undo_ends_the_way_forward(tmp_path: Path) -> None:
    with make_project(tmp_path) as project:
        for value in (1, 2):
            project.write_mask(A, scene() * 0 + value)
        project.undo(A)
        project.write_mask(A, scene())
        with pytest.raises(UsageError, match="nothing to redo"):
            project.redo(A)
        project.restore(A, 2)
        assert (project.read_mask(A) == 2).all()
        project.undo(A)
        assert (project.read_mask(A) == scene()).all()


def test_whoever_goes_back_says_what_they_see(tmp_path: Path) -> None:
    with make_project(tmp_path) as project:
        for value in (1, 2):
            project.write_mask(A, scene() * 0 + value)
        for go in (project.undo, project.redo, lambda name, **words: project.restore(name, 1, **words)):
            with pytest.raises(StaleRevisionError, match="revision 2 stands, not 1") as caught:
                go(A, base_revision=1)
            assert caught.value.current == 2


class Model(RuleBasedStateMachine):
    """Two clients draw squares on tiles, from whatever revision each saw last; NumPy keeps the truth beside."""

    folder: Path
    runs = 0

    @initialize()
    def begin(self) -> None:
        Model.runs += 1
        folder = self.folder / str(Model.runs)
        folder.mkdir()
        self.project = make_project(folder, hw=(4, TILE + 4), names=(A,))  # two tiles, small
        self.states = [np.zeros((4, TILE + 4), np.uint16)]  # by revision
        self.ways: list[tuple[int | None, int | None]] = [(None, None)]
        self.named = [False]  # whether the objects are in the list of the revision, or nobody drew yet
        self.head = 0
        self.seen = {"ann": 0, "ben": 0}

    def teardown(self) -> None:
        if hasattr(self, "project"):
            for number, state in enumerate(self.states):
                assert (self.project.read_mask(A, number) == state).all()
            assert self.project.sample(A).head == self.head
            assert self.project.store.damages() == []
            self.project.close()

    def _stands(self, state: np.ndarray, undo_to: int | None, redo_to: int | None, named: bool) -> None:
        self.states.append(state)
        self.named.append(named)
        self.ways.append((undo_to, redo_to))
        self.head = len(self.states) - 1

    @rule(who=st.sampled_from(["ann", "ben"]))
    def look(self, who: str) -> None:
        assert (self.project.read_mask(A) == self.states[self.head]).all()
        self.seen[who] = self.head

    @rule(
        who=st.sampled_from(["ann", "ben"]),
        column=st.integers(0, 1),
        at=st.tuples(st.integers(0, 3), st.integers(0, 3)),
        value=st.sampled_from([0, 1, 3]),
    )
    def draw(self, who: str, column: int, at: tuple[int, int], value: int) -> None:
        base = self.states[self.seen[who]]
        mine = base.copy()
        mine[at[0], column * TILE + at[1]] = value
        head = self.states[self.head]
        left, right = slice(0, TILE), slice(TILE, None)
        merged, is_refused = head.copy(), False
        for part in (left, right):
            was, own, other = base[:, part], mine[:, part], head[:, part]
            if (own != was).any() and (other != was).any() and (own != other).any():
                is_refused = True
            elif (own != was).any():
                merged[:, part] = own
        named = self.named[self.head] or not self.named[self.seen[who]]
        is_refused |= not named and bool(merged.any())  # they took the objects away that are drawn on here
        annotations = [{"id": number, "category_id": number} for number in (1, 3)]
        place = (0, column)
        operation = Operation(self.seen[who], {place: mine[:, (left, right)[column]]}, annotations)
        if is_refused:
            with pytest.raises(StaleRevisionError) as caught:
                self.project.write(A, operation)
            assert caught.value.current == self.head
            self.states.append(mine)
            self.named.append(True)
            self.ways.append((None, None))
            assert caught.value.branch == len(self.states) - 1
            return
        written = self.project.write(A, operation)
        self._stands(merged, self.head, None, named)
        assert written.revision == self.head
        self.seen[who] = self.head

    @precondition(lambda self: self.ways[self.head][0] is not None)
    @rule()
    def undo(self) -> None:
        target = self.ways[self.head][0]
        assert target is not None
        self.project.undo(A)
        self._stands(self.states[target], self.ways[target][0], self.head, self.named[target])

    @precondition(lambda self: self.ways[self.head][1] is not None)
    @rule()
    def redo(self) -> None:
        target = self.ways[self.head][1]
        assert target is not None
        self.project.redo(A)
        self._stands(self.states[target], *self.ways[target], self.named[target])

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        target = data.draw(st.integers(0, len(self.states) - 1))
        self.project.restore(A, target)
        self._stands(self.states[target], self.head, None, self.named[target])

    @rule()
    def reopen(self) -> None:
        self.project.close()
        self.project = open_project(self.project.path)


@pytest.mark.parametrize("examples", [12, pytest.param(300, marks=pytest.mark.long)])
def test_the_store_does_what_a_model_of_it_in_numpy_does(tmp_path: Path, examples: int) -> None:
    Model.folder = tmp_path
    run_state_machine_as_test(
        Model,
        settings=settings(max_examples=examples, stateful_step_count=25, deadline=None, derandomize=True,
                          suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate]),
    )  # fmt: skip
