"""Parquet and Arrow files: a row group is read when one of its rows is asked for (extra ``data``: pyarrow)."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.installation import import_extra
from astrea.data.readers.issues import BadRow, printable
from astrea.data.readers.reader import Form, Row, RowReader, open_guard
from astrea.data.readers.record import Where

MAX_GROUP_BYTES = 4 << 30
"""The largest row group, uncompressed, that is read."""

KEPT_GROUPS = 4
"""How many row groups are kept in memory; as many as are shuffled into each other, see `GroupedOrder`."""

ROWS_WRITTEN = 256


def load_pyarrow() -> Any:
    """The module pyarrow, with its parquet and ipc.

    Raises:
        AstreaError: it is not installed.
    """
    for module in ("pyarrow.ipc", "pyarrow.parquet", "pyarrow"):
        found = import_extra(module, "data", "reading Parquet and Arrow files")
    return found


def is_parquet(path: Path) -> bool:
    """Whether a table is a Parquet file, by its ending; else it is an Arrow one."""
    return path.suffix.lower() == ".parquet"


class TableReader(RowReader):
    """A ``.parquet`` file, or an ``.arrow`` (``.feather``, ``.ipc``) one as a file or a stream.

    The last `KEPT_GROUPS` row groups that were read are kept, so read neighbours one after another. An Arrow file is
    mapped into memory and costs next to nothing per row.

    Args:
        path: the file.
        format, form: the rows' format.

    Raises:
        AstreaError: pyarrow is missing, or the file cannot be read.
    """

    def __init__(self, path: Path, format: str, form: Form) -> None:
        super().__init__(path, format, form)
        self._open()

    def _open(self) -> None:
        arrow = load_pyarrow()
        with open_guard(self.path), _damaged(self.path):
            self.file: Any
            if is_parquet(self.path):
                self.file = arrow.parquet.ParquetFile(self.path)
                groups = [self.file.metadata.row_group(number) for number in range(self.file.num_row_groups)]
                self._sizes = [group.num_rows for group in groups]
                self._bytes = [group.total_byte_size for group in groups]
            else:
                self.file = _arrow_file(arrow, self.path)
                shapes = [self._batch_shape(number) for number in range(self.file.num_record_batches)]
                self._sizes, self._bytes = [rows for rows, _ in shapes], [size for _, size in shapes]
        self._ends = list(accumulate(self._sizes))
        self._kept: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "format": self.format, "form": self.form}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def groups(self) -> list[int]:
        return list(self._sizes) if is_parquet(self.path) else [len(self)]

    def row(self, index: int) -> tuple[Where, Row | BadRow]:
        where = Where(str(self.path), index + 1)
        try:
            return where, self.table_row(index).to_pylist()[0]
        except BadRow as bad:
            return where, bad
        except Exception as error:  # damaged pages make pyarrow raise nearly any type
            return where, BadRow("unreadable", f"the row group is damaged: {_said(error)}", "write the file again")

    def table_row(self, index: int) -> Any:
        """Row ``index`` as a table of one row.

        Raises:
            BadRow: its row group is too large.
        """
        group = bisect_right(self._ends, index)
        return self._group(group).slice(index - (self._ends[group] - self._sizes[group]), 1)

    @property
    def schema(self) -> Any:
        """The columns' names and types."""
        return self.file.schema_arrow if is_parquet(self.path) else self.file.schema

    def _batch_shape(self, number: int) -> tuple[int, int]:
        batch = self.file.get_batch(number)
        return batch.num_rows, batch.nbytes

    def _group(self, group: int) -> Any:
        """A row group as a table, from the few that are kept or from the file."""
        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group]
        if self._bytes[group] > MAX_GROUP_BYTES:
            what = f"row group {group + 1} has {self._bytes[group]:,} bytes; at most {MAX_GROUP_BYTES:,} are read"
            raise BadRow("unreadable", what, "write the file with smaller row groups (row_group_size)")
        if is_parquet(self.path):
            table = self.file.read_row_group(group)
        else:
            table = self.file.get_batch(group)
            table.validate(full=True)  # offsets that lie would otherwise be followed
            table = load_pyarrow().Table.from_batches([table])
        self._kept[group] = table
        while len(self._kept) > KEPT_GROUPS:
            self._kept.popitem(last=False)
        return table


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Turns whatever pyarrow raises about a file's frame into an `AstreaError`."""
    try:
        yield
    except (AstreaError, OSError):
        raise
    except Exception as error:  # damaged frames make pyarrow raise nearly any type
        raise AstreaError(f"{path} is no readable table: {_said(error)}", "write or copy the file again") from None


def _said(error: Exception) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0], 200)


class _Stream:
    """An Arrow stream with the access of an Arrow file; its batches are views of the mapped file."""

    def __init__(self, batches: list[Any], schema: Any) -> None:
        self.batches = batches
        self.schema = schema
        self.num_record_batches = len(batches)

    def get_batch(self, number: int) -> Any:
        return self.batches[number]


def _arrow_file(arrow: Any, path: Path) -> Any:
    """An Arrow file, or a stream such as HF datasets writes."""
    source = arrow.memory_map(str(path))
    try:
        return arrow.ipc.open_file(source)
    except arrow.ArrowInvalid:
        source.seek(0)
        stream = arrow.ipc.open_stream(source)
        return _Stream(list(stream), stream.schema)


class TableWriter:
    """Writes rows of a table, some of them changed, into a new file of the same schema.

    Args:
        reader: the original.
        path: the new file, with the original's ending.
    """

    def __init__(self, reader: TableReader, path: Path) -> None:
        self.reader = reader
        self.arrow = load_pyarrow()
        self.schema = reader.schema
        self.rows: list[Any] = []
        self.writer = (
            self.arrow.parquet.ParquetWriter(path, self.schema)
            if is_parquet(path)
            else self.arrow.ipc.new_file(path, self.schema)
        )

    def copy(self, index: int) -> None:
        """Write a row of the original as it is."""
        self._put(self.reader.table_row(index))

    def write(self, row: Row) -> bool:
        """Write a changed row; False if it does not fit the schema."""
        try:
            self._put(self.arrow.Table.from_pylist([row], schema=self.schema))
        except (self.arrow.ArrowInvalid, self.arrow.ArrowTypeError, TypeError, OverflowError):
            return False
        return True

    def _put(self, table: Any) -> None:
        self.rows.append(table)
        if len(self.rows) == ROWS_WRITTEN:
            self._flush()

    def _flush(self) -> None:
        if self.rows:
            self.writer.write_table(self.arrow.concat_tables(self.rows))
            self.rows = []

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self.writer.close()
