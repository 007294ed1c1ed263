"""Pseudonyms, the key behind them, masked names, shifted dates."""

import multiprocessing
import re
import secrets
import stat
import time
from pathlib import Path

import pytest

from medcnn.data import pseudonyms
from medcnn.data.pseudonyms import find_file, hidden_path, masked_path, pseudonym, require_key_outside, shift_days, tokens_of
from medcnn.errors import InputError


def test_the_key_is_made_once_for_the_owner_alone(key: Path) -> None:
    assert not key.exists()
    first = pseudonym("patient", " 4711 ")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert pseudonym("patient", "4711") == first
    assert pseudonym("study", "4711").split("-")[1] != first.split("-")[1]
    assert "quirin" not in pseudonym("patient", "Quirin").casefold()  # letters that no hexadecimal number holds by chance


def test_processes_that_start_together_share_one_whole_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, drawn = tmp_path / "new" / "pseudonym.key", secrets.token_hex

    def slow(n_bytes: int) -> str:
        time.sleep(0.05)  # whoever looks at the path now must not find an empty key
        return drawn(n_bytes)

    monkeypatch.setattr(secrets, "token_hex", slow)
    with multiprocessing.get_context("fork").Pool(8) as pool:
        keys = pool.map(_key_bytes, [path] * 8, chunksize=1)
    assert set(keys) == {path.read_bytes().strip()}
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o077 == 0


def _key_bytes(path: Path) -> bytes:
    return pseudonyms._key(path)


def test_another_key_gives_other_pseudonyms_and_a_bad_key_is_refused(key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pseudonym("patient", "4711")
    monkeypatch.setenv("MEDCNN_PSEUDONYM_KEY", str(tmp_path / "other.key"))
    assert pseudonym("patient", "4711") != first
    (tmp_path / "short.key").write_text("abc")
    (tmp_path / "file").touch()
    for path, message in [(tmp_path / "short.key", "at least 32"), (tmp_path / "file" / "x.key", "cannot be read or made")]:
        monkeypatch.setenv("MEDCNN_PSEUDONYM_KEY", str(path))
        with pytest.raises(InputError, match=message):
            pseudonym("patient", "4711")


def test_a_key_inside_the_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_key_outside(tmp_path)
    monkeypatch.setenv("MEDCNN_PSEUDONYM_KEY", str(tmp_path / "run" / "a" / "pseudonym.key"))
    with pytest.raises(InputError, match="inside the run's folder"):
        require_key_outside(tmp_path / "run")
    require_key_outside(tmp_path / "another")


def test_names_in_paths_are_masked_and_found_again(tmp_path: Path) -> None:
    real = tmp_path / "export" / "DOE_JOHN_4711" / "1.2.840.113619.2.5.dcm"
    real.parent.mkdir(parents=True)
    real.touch()
    shown_as = masked_path("export/DOE_JOHN_4711/1.2.840.113619.2.5.dcm", ["Doe"])
    assert re.fullmatch(r"export/~[0-9a-f]{16}/~[0-9a-f]{16}\.dcm", shown_as)
    assert find_file(tmp_path, shown_as) == real
    assert masked_path("export/v1.2.3/a.dcm", ["Doe", "ex"]) == "export/v1.2.3/a.dcm"
    assert masked_path("a/doe-1.dcm", [], frozenset(tokens_of("Doe^John"))).startswith("a/~")
    assert masked_path("a/doe1.dcm", [], frozenset(tokens_of("Doe^John"))) == "a/doe1.dcm"
    assert not find_file(tmp_path, "export/~0000000000000000/x").exists()


def test_a_hidden_path_tells_nothing_but_the_ending_and_is_found_again(tmp_path: Path) -> None:
    real = tmp_path / "Zebulon's scans" / "Quirin.DCM"
    real.parent.mkdir()
    real.touch()
    shown = hidden_path("Zebulon's scans/Quirin.DCM")
    assert re.fullmatch(r"~[0-9a-f]{16}/~[0-9a-f]{16}\.DCM", shown)
    assert find_file(tmp_path, shown) == real
    assert hidden_path("name.of.quirin") == f"~{hidden_path('name.of.quirin')[1:17]}"  # an ending of six letters may be a name


def test_days_are_shifted_by_1_to_365_alike_for_one_and_evenly_over_many() -> None:
    days = [shift_days(f"patient {number}") for number in range(2000)]
    assert shift_days(" patient 7 ") == days[7]
    assert min(days) >= 1
    assert max(days) <= 365
    assert 160 < sum(days) / len(days) < 206  # 183 expected, standard error 2.4


def test_another_key_shifts_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [shift_days(str(number)) for number in range(20)]
    monkeypatch.setenv("MEDCNN_PSEUDONYM_KEY", str(tmp_path / "other.key"))
    assert [shift_days(str(number)) for number in range(20)] != first
