"""The small worlds that distillation is tested on."""

from functools import partial
from pathlib import Path

import pytest
from small_worlds import MakeWorld, World, random_sequences, world_in


@pytest.fixture
def make_world(tmp_path: Path) -> MakeWorld:
    """A function of sequences and the size of the catalogue; each call makes a store of its own."""
    return partial(world_in, tmp_path)


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """24 users with 3 to 9 items of a catalogue of 11, once for all tests of a file."""
    return world_in(tmp_path_factory.mktemp("shared"), random_sequences(3, 24, 11, 9), 11)


@pytest.fixture
def random_world(make_world: MakeWorld) -> World:
    """12 users with 3 to 9 items of a catalogue of 11."""
    return make_world(random_sequences(0, 12, 11, 9), 11)
