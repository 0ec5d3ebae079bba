"""What reading refuses to do, so that no file takes the machine's memory, disk or time with it."""

from typing import Annotated

from pydantic import Field

from spool.protocol.training import Group


class Limits(Group):
    max_unpacked_gb: Annotated[float, Field(gt=0, le=100_000)] = 50.0
    """So much (in GB, unpacked) is read of a gzip file, a zip archive or a folder. Plain files may be larger."""

    max_unpack_ratio: Annotated[float, Field(ge=2, le=10_000)] = 100.0
    """An archive that unpacks to more than so many times its size is refused. Text packs about 3 to 20 times."""

    max_files: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """So many files are read of a folder or an archive."""

    max_row_mb: Annotated[float, Field(gt=0, le=1_000)] = 16.0
    """A longer row is dropped. It bounds the memory that one row can take."""

    max_columns: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """A table with more columns is refused."""

    max_whole_mb: Annotated[float, Field(gt=0, le=100_000)] = 512.0
    """A JSON file that holds one list a column is read as a whole, up to this size."""

    @property
    def row_bytes(self) -> int:
        return int(self.max_row_mb * 1e6)


DEFAULT = Limits()
RATIO_COUNTS_FROM_BYTES = 10_000_000
