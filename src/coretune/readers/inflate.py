"""Decompressed streams (gzip, zstd) that keep all that came before their data break off, and say that they did."""

from __future__ import annotations

import io
import zlib
from typing import IO, Any

PIECE = 1 << 14  # compressed bytes taken at a time
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def is_compressed(head: bytes) -> bool:
    """Whether bytes begin a gzip or zstd stream."""
    return head[:2] == GZIP or head[:4] == ZSTD


class Inflated(io.RawIOBase):
    """What a gzip or zstd stream holds, all its members; `fault` says, at the end, what is wrong with its data."""

    def __init__(self, source: IO[bytes], head: bytes) -> None:
        self._source = source
        self._zstd = head[:4] == ZSTD
        self._decoder = self._fresh()
        self._ready = memoryview(b"")
        self.fault: str | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill `target` as far as one piece goes; 0 at the end."""
        while not self._ready and self.fault is None:
            piece = self._source.read(PIECE)
            if not piece:
                if not self._decoder.eof:
                    self.fault = "the compressed data are cut short"
                break
            self._ready = memoryview(self._inflate(piece))
        size = min(len(target), len(self._ready))
        target[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _fresh(self) -> Any:
        if not self._zstd:
            return zlib.decompressobj(wbits=31)
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj()

    def _inflate(self, piece: bytes) -> bytes:
        """What a piece holds; a damaged one sets `fault` and gives what came before the damage."""
        made = []
        try:
            while piece:
                if self._decoder.eof:
                    piece = piece.lstrip(b"\0")  # padding between and after members is allowed
                    if not piece:
                        break
                    self._decoder = self._fresh()
                made.append(self._decoder.decompress(piece))
                piece = self._decoder.unused_data
        except Exception as error:  # zlib's and zstandard's errors have no common base
            self.fault = f"the compressed data are damaged ({error})"
        return b"".join(made)
