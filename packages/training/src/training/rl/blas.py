"""One thread for numpy's matrix products while a batch goes through a small network.

numpy's BLAS and PyTorch have a pool of threads each. Where one is asked right after the other, as in every update, the
first one's threads still spin and the second's wait for them: on two cores updates of 128 rows through layers of 64
units took ten times as long as with one thread. Products of up to `SMALL` rows are computed by one thread anyway.
"""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

SMALL = 64


def one_thread(rows: int) -> contextlib.AbstractContextManager[object]:
    """Inside, BLAS uses one thread (where threadpoolctl, of the extra `rl`, is installed); 6 us each time."""
    if rows <= SMALL:
        return contextlib.nullcontext()
    pools = _pools()
    limited: contextlib.AbstractContextManager[object] = pools.limit(limits=1) if pools else contextlib.nullcontext()
    return limited


@cache
def _pools() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")
