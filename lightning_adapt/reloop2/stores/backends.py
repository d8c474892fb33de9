"""Which store a memory keeps its samples in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_adapt.reloop2.stores.ann import AnnStore
from lightning_adapt.reloop2.stores.ring import RingStore
from lightning_adapt.reloop2.stores.sketch import SketchStore

if TYPE_CHECKING:
    from lightning_adapt.reloop2.settings import MemorySettings
    from lightning_adapt.reloop2.stores.store import Store

__all__ = ["build_store"]


def build_store(settings: MemorySettings) -> Store:
    """Return an empty store.

    Args:
        settings: Settings of the memory.

    Returns:
        The store of its backend, on the CPU.

    Raises:
        ModuleNotFoundError: If the backend is "faiss" and faiss-cpu is not installed.
    """
    if settings.backend == "sketch":
        return SketchStore(settings.n_bits, settings.n_tables, settings.half_life, settings.seed)
    kind = AnnStore if settings.backend == "faiss" else RingStore
    return kind(settings.capacity, settings.k, settings.tau)
