"""What the tests of several processes share."""

import pytest

from tests.stress import children


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    """Starts processes that have imported everything, with one compilation cache."""
    nursery = children.Nursery(tmp_path_factory.mktemp("children"))
    yield nursery
    nursery.close()
