"""Shapes in types: `Float[np.ndarray, "n d"]`; jaxtyping's own when type-checking or already loaded, else free."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Float32, Int, Int32, Int64
else:

    class _Shape:
        """Takes any subscript and stands for the array type alone, so that nothing is imported for it."""

        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            return item[0]

    Bool = Float = Float32 = Int = Int32 = Int64 = _Shape

__all__ = ["Bool", "Float", "Float32", "Int", "Int32", "Int64"]
