"""Data formats of other packages: through recipe lines alone, by entry point or module, with errors that name them."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from astrea.common.errors import AstreaError
from astrea.data.readers import FileImage, Issue, Record, Where, open_reader
from astrea.data.readers.mixture import Mixture
from astrea.data.readers.plugins import PLUGINS
from astrea.data.readers.sources import configured_sources
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from command_line import Astrea
from own_files import drawn, save_pictures
from repository import EXAMPLES

ROWS = """
from astrea.data.readers import BadRow, FileImage, Record

def rows(row, where):
    if "text" not in row:
        raise BadRow("no_text", "there is no text", "write one")
    return Record(row["key"], where, images=(FileImage(row["file"]),), captions=(row["text"],))

def nothing(row, where):
    return None

number = 7

class Other:
    pass
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PYTHONPATH does, with the example and a module beside it."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "row_formats_of_a_test.py").write_text(ROWS)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(tmp_path / "plugins"))


@pytest.fixture
def registered(plugins: None, tmp_path: Path) -> None:
    """The same, installed: with the metadata that pip writes."""
    folder = tmp_path / "plugins" / "toy_readers-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-readers\nVersion: 1.0\n")
    lines = ["caption-tsv = caption_tsv:CaptionTsv", "keyed = row_formats_of_a_test:rows"]
    (folder / "entry_points.txt").write_text("\n".join([f"[{PLUGINS.group}]", *lines, ""]))
    assert importlib.metadata.entry_points(group=PLUGINS.group)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Four pictures with captions, and a line without a tab."""
    paths = save_pictures(drawn(4), tmp_path)
    lines = [f"{path}\tpicture {number}" for number, path in enumerate(paths)]
    file = tmp_path / "album.tsv"
    file.write_text("\n".join([*lines[:2], "no tab here", *lines[2:]]) + "\n")
    return file


@pytest.fixture
def keyed(tmp_path: Path) -> Path:
    file = tmp_path / "keyed.jsonl"
    rows = [{"key": "a", "file": "a.png", "text": "a cat"}, {"key": "b", "file": "b.png"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("format", ["caption-tsv", "caption_tsv:CaptionTsv"])
def test_a_recipe_trains_on_a_format_of_another_package(album: Path, format: str) -> None:
    entry = json.dumps({"path": str(album), "format": format})
    recipe = load_recipe(Recipe, "tiny", [f"data.train=[{entry}]"])
    issues: list[Issue] = []
    mixture = Mixture(configured_sources(recipe.data), on_issue=issues.append)
    captions = {mixture.sample(place, 0, 0).record.captions for place in range(len(mixture))}
    assert captions == {(f"picture {number}",) for number in range(4)}
    assert {str(issue) for issue in issues} == {f"{album}:3 -: the line has no tab; write: picture, tab, caption"}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("format", ["caption-tsv", "caption_tsv:CaptionTsv"])
def test_validate_knows_it(astrea: Astrea, album: Path, format: str) -> None:
    result = astrea("validate", album, "--format", format)
    assert result.code == 1
    assert f"{album}:3 -: the line has no tab" in result.out
    assert format in result.out


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("format", ["keyed", "row_formats_of_a_test:rows"])
def test_a_function_reads_rows(keyed: Path, format: str) -> None:
    good, bad = open_reader(keyed, format).examine()
    assert good == Record("a", Where(str(keyed), 1), (FileImage("a.png"),), captions=("a cat",))
    assert isinstance(bad, Issue)
    assert (bad.kind, bad.where.number) == ("no_text", 2)


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("format", "said"),
    [
        ("no_such_module_of_ours:Name", "No module named 'no_such_module_of_ours'"),
        ("row_formats_of_a_test:Missing", "has no attribute 'Missing'"),
        ("row_formats_of_a_test:number", "neither a function nor a subclass of IndexedReader"),
        ("row_formats_of_a_test:Other", "neither a function nor a subclass of IndexedReader"),
        ("unheard-of", "unknown format 'unheard-of'"),
    ],
)
def test_a_format_that_cannot_be_had(keyed: Path, format: str, said: str) -> None:
    with pytest.raises(AstreaError, match=said):
        open_reader(keyed, format)


@pytest.mark.usefixtures("plugins")
def test_a_format_that_fails_is_named_with_the_row(
    keyed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import caption_tsv

    (tmp_path / "rows.jsonl").write_text('{"text": "a cat"}\n')
    with pytest.raises(AstreaError, match=r"rows\.jsonl:1: the data format .* raised KeyError: 'key'"):
        list(open_reader(tmp_path / "rows.jsonl", "row_formats_of_a_test:rows").examine())
    with pytest.raises(AstreaError, match=r"keyed\.jsonl:1: .* returned NoneType instead of a Record"):
        list(open_reader(keyed, "row_formats_of_a_test:nothing").examine())
    with pytest.raises(AstreaError, match=r"gone\.tsv: the data format .* raised FileNotFoundError"):
        open_reader(tmp_path / "gone.tsv", "caption_tsv:CaptionTsv")
    (tmp_path / "a.tsv").write_text("a.png\ta cat\n")
    monkeypatch.setattr(caption_tsv.CaptionTsv, "read", lambda self, index: 1 // index)
    with pytest.raises(AstreaError, match=r"a\.tsv:1: the data format .* raised ZeroDivisionError"):
        list(open_reader(tmp_path / "a.tsv", "caption_tsv:CaptionTsv").examine())
