"""What the sources looked like when they were read, so that a change to them is seen without reading every image again."""

import os
from collections.abc import Iterator
from pathlib import Path

from medcnn.artifact import digest, file_digest
from medcnn.config_data import DataConfig
from medcnn.data.sources_npz import npz_path


def source_digest(config: DataConfig) -> str:
    """sha256 over the tables' bytes, and over name, size and modification time of every image file below the source.

    phantom: "phantom", since such images follow from the config alone. Raises InputError when an NPZ set is not to be had.
    """
    if config.source == "phantom":
        return "phantom"
    if config.source == "npz":
        return file_digest(npz_path(config))
    tables = [path for path in (config.path, config.label_table) if path is not None and path.is_file()]
    root = config.image_root or config.path
    if config.source == "table" and config.image_root is None and config.path is not None:
        root = config.path.parent
    folders = [folder for folder in (root, config.slides.annotations) if folder is not None and folder.is_dir()]
    listing = [entry for folder in folders for entry in sorted(_listing(folder))]
    return digest({"tables": [file_digest(path) for path in tables], "files": listing})


def _listing(folder: Path) -> Iterator[tuple[str, int, int]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            try:
                facts = path.lstat()
            except FileNotFoundError:  # went away while we looked; ingest will say so if it is missed
                continue
            yield path.relative_to(folder).as_posix(), facts.st_size, facts.st_mtime_ns
