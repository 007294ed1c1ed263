"""A table that somebody else wrote, as text: CSV, TSV or Parquet, and every way in which such a file can be broken."""

import codecs
import csv
from pathlib import Path

import pandas as pd

from medcnn.errors import InputError

BLOCK = 1 << 20
LONGEST_HEADER = 1 << 20  # characters
BOMS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def read_text_table(path: Path) -> pd.DataFrame:
    """A .csv, .tsv or .parquet table with every value as text, or None where it is blank.

    A CSV may be separated by comma, semicolon or tab, and is read as UTF-8, with or without a byte order mark. One column
    may lack a name. Raises InputError, for a damaged file before any row is taken, naming the line where there is one.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; expected a .csv, .tsv or .parquet table")
    if suffix not in {".csv", ".tsv", ".parquet"}:
        raise InputError(f"{path}: cannot tell what table {suffix or 'a file without ending'} is; expected .csv, .tsv or .parquet")
    try:
        table = _read_parquet(path) if suffix == ".parquet" else _read_csv(path)
    except InputError:
        raise
    except (ValueError, OSError, OverflowError, pd.errors.ParserError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table: {(str(error).splitlines() or ['damaged'])[0]}") from None
    if table.empty:
        raise InputError(f"{path}: the table has no rows")
    return table


def require_one_line(values: pd.Series, source: object) -> pd.Series:
    """The values, or InputError when one runs over several lines: then a quotation mark is missing, and rows are lost in it."""
    torn = values.astype(str).str.contains("[\n\r]", regex=True)
    if torn.any():
        row = int(torn.to_numpy().argmax())
        raise InputError(
            f"{source}: {values.name} runs over several lines in row {row + 2}; a quotation mark is missing there or too many, and rows that follow are lost in it"
        )
    return values


def _read_csv(path: Path) -> pd.DataFrame:
    _require_text(path)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline(LONGEST_HEADER)
    if len(first) == LONGEST_HEADER:
        raise InputError(f"{path}: its first line has more than {LONGEST_HEADER:,} characters; expected the names of the columns")
    separator = max(",;\t", key=first.count)
    header = next(csv.reader([first], delimiter=separator, strict=True), [])
    _require_names(header, path)
    # The parser in C names the line of a row with too many values.
    table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", engine="c")
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first columns for row names
        raise InputError(f"{path}: its rows have more values than its first line has names ({len(header)}); name every column")
    return table


def _require_text(path: Path) -> None:
    """Raise InputError unless the whole file is UTF-8 without NUL bytes; a block of it is held at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    at, line = 0, 1
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            if at == 0:
                _require_no_mark(block, path)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                _refuse_bytes(
                    path, at - pending + error.start, line + block.count(b"\n", 0, max(0, error.start - pending)), error.object[error.start]
                )
            if (nul := block.find(b"\0")) >= 0:
                _refuse_bytes(path, at + nul, line + block.count(b"\n", 0, nul), 0)
            at, line = at + len(block), line + block.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise InputError(f"{path}: ends within a character: it is cut short, or is not UTF-8 text") from None
    if at == 0:
        raise InputError(f"{path}: the table is empty")


def _require_no_mark(block: bytes, path: Path) -> None:
    mark = next((name for mark, name in BOMS.items() if block.startswith(mark)), None)
    if mark:
        raise InputError(f"{path}: is {mark} text, as Excel's `Unicode text` is; save it as UTF-8 (`CSV UTF-8`)")


def _refuse_bytes(path: Path, at: int, line: int, value: int) -> None:
    why = "a NUL byte: UTF-16 text without a mark, or no text at all" if value == 0 else "save it as UTF-8"
    raise InputError(f"{path}: is not UTF-8 text (byte {at}, in line {line}, is 0x{value:02x}); {why}")


def _require_names(header: list[str], path: Path) -> None:
    named = [name for name in header if name.strip()]
    repeated = sorted({name for name in named if named.count(name) > 1})
    if not named:
        raise InputError(f"{path}: its first line is blank; expected the names of the columns")
    if repeated:
        raise InputError(f"{path}: two columns are called {repeated[0]!r}; give each its own name")
    nameless = [number for number, name in enumerate(header, start=1) if not name.strip()]
    if len(nameless) > 1:
        listed = ", ".join(map(str, nameless[:5]))
        raise InputError(
            f"{path}: columns {listed}{' ...' if len(nameless) > 5 else ''} have no name in the first line; name or remove them"
        )


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        _require_names([str(name) for name in names], path)
        return _as_text(pd.read_parquet(path))
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as a table: {(str(error).splitlines() or ['damaged'])[0]}") from None


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Parquet's typed columns as CSV would have them: 1 and not 1.0 or True."""
    text = {}
    for column in table.columns:
        values = table[column]
        is_whole = pd.api.types.is_float_dtype(values) and bool((values.dropna() % 1 == 0).all())
        if is_whole or pd.api.types.is_bool_dtype(values):
            values = values.astype("Int64")
        text[str(column)] = [None if is_missing else str(value) for value, is_missing in zip(values, values.isna(), strict=True)]
    return pd.DataFrame(text, dtype=object)
