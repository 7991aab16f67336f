"""What every test runs under."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """Reference decompositions in tests are small: threads only make them wait for each other on a busy machine."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
