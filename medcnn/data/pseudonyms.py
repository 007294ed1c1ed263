"""Identities become pseudonyms: the same person the same word everywhere, and nobody without the key can go back.

Pseudonyms are the first 64 bits of an HMAC-SHA256 under a key that never lies inside a run: in the file that
$MEDCNN_PSEUDONYM_KEY names, else in ~/.config/medcnn/pseudonym.key, made on first use and readable by its owner alone.
"""

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath

from medcnn.errors import InputError

KEY_VARIABLE = "MEDCNN_PSEUDONYM_KEY"
SHORTEST = 3
MASK = "~"  # a name that was masked in a path starts with this
_UID = re.compile(r"\d+(\.\d+){4,}")  # five numbers or more: a DICOM UID, not a version


def pseudonym(kind: str, identity: str) -> str:
    """`KIND-0123456789abcdef` for an identity; kind: patient, study, site, scanner. Raises InputError when the key cannot be had."""
    return f"{kind}-{_code(kind, identity.strip())}"


def shift_days(identity: str) -> int:
    """By how many days, 1 to 365, the dates of this patient are moved back: the same for all of them, and secret as the key is."""
    return int(_code("days", identity.strip()), 16) % 365 + 1


def masked_path(path: str, identities: Iterable[str], words: frozenset[str] = frozenset()) -> str:
    """The relative path with each folder or file name masked that holds a UID, one of the identities or one of the words; endings stay.

    An identity of three letters or more is found anywhere in a name; words (as tokens_of gives them) only as whole words.
    """
    known = [identity.casefold() for identity in identities if len(identity) >= SHORTEST]
    return "/".join(_masked(part) if _tells(part, known, words) else part for part in PurePosixPath(path).parts)


def hidden_path(path: str) -> str:
    """The relative path with every folder and file name masked; endings stay."""
    return "/".join(_masked(part) for part in PurePosixPath(path).parts)


def tokens_of(text: str) -> list[str]:
    """Words of letters and digits, three or more of them, in lower case."""
    return [token for token in re.split(r"[\W_]+", text.casefold()) if len(token) >= SHORTEST]


def find_file(root: Path, path: str) -> Path:
    """The real place of a path that may hold masked names. A name that fits nothing is left as it is, so that opening it fails."""
    place = root
    for part in PurePosixPath(path).parts:
        literal = place / part
        place = literal if not part.startswith(MASK) or literal.exists() else place / _real_names(place).get(part, part)
    return place


def _tells(name: str, identities: list[str], words: frozenset[str]) -> bool:
    folded = name.casefold()
    return bool(_UID.search(name)) or any(identity in folded for identity in identities) or not words.isdisjoint(tokens_of(name))


def _masked(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    ending = suffix if re.fullmatch(r"\.[A-Za-z]{1,5}", suffix) else ""
    return f"{MASK}{_code('name', name)}{ending}"


@lru_cache(maxsize=4096)
def _real_names(folder: Path) -> dict[str, str]:
    try:
        return {_masked(entry.name): entry.name for entry in os.scandir(folder)}
    except OSError:
        return {}


def _code(kind: str, identity: str) -> str:
    return hmac.new(_key(key_path()), f"{kind}\0{identity}".encode(), hashlib.sha256).hexdigest()[:16]


def key_path() -> Path:
    """Where the key is, or will be."""
    named = os.environ.get(KEY_VARIABLE)
    return Path(named) if named else Path.home() / ".config" / "medcnn" / "pseudonym.key"


def require_key_outside(folder: Path) -> None:
    """Raise InputError when the key lies in the folder of a run: whoever is given the run would be given the key."""
    if key_path().resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{key_path()}: the key for pseudonyms lies inside the run's folder; let {KEY_VARIABLE} name a file elsewhere")


@lru_cache(maxsize=4)
def _key(path: Path) -> bytes:
    try:
        if not path.exists():
            _write_key(path)
        key = path.read_bytes().strip()
    except OSError as error:
        reason = f"cannot be read or made ({error.strerror})"
        raise InputError(f"{path}: the key for pseudonyms {reason}; set {KEY_VARIABLE} to a file that you may write") from None
    if len(key) < 32:
        raise InputError(
            f"{path}: the key for pseudonyms has {len(key)} characters; expected at least 32 (delete the file to have one made)"
        )
    return key


def _write_key(path: Path) -> None:
    """Make the key aside and link it into place whole: processes that start together all read the first one's, never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600: for its owner alone
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first; its key is the key
            os.link(aside, path)
    finally:
        Path(aside).unlink()
