"""`import astrea` is light, and all the same transformers knows the model whichever of the two is imported first."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from astrea.model import import_hook


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_is_light_and_transformers_knows_it_all_the_same():
    python("""
        import sys, astrea
        assert not {"torch", "transformers", "numpy", "pydantic"} & sys.modules.keys()
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
        config = AutoConfig.for_model("astrea")
        assert type(config) is astrea.AstreaConfig
        assert AutoModelForImageTextToText._model_mapping[type(config)] is astrea.AstreaForConditionalGeneration
        assert not any("astrea" in str(finder) for finder in sys.meta_path), sys.meta_path
        import transformers
        assert "astrea" not in str(type(transformers.__spec__.loader))
    """)


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A library and a package that registers with it, in the places of transformers and Astrea; both note what runs."""
    for name, text in {
        "some_library/__init__.py": "notes = []",
        "some_library/deep.py": "import some_library; some_library.notes.append('deep')",
        "some_package/__init__.py": "",
        "some_package/model/registration.py": """
            import some_package.model
            def register():
                import some_library
                some_library.notes.append(f"registered {some_package.model.READY}")
        """,
        "some_package/model/__init__.py": "import some_library, some_package.leaf\nREADY = some_package.leaf.READY",
        "some_package/leaf.py": "import some_library, some_package\nREADY = True",
        "some_package/plain.py": "",
        "some_package/broken.py": "import some_library\nraise RuntimeError('broken')",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(import_hook, "PACKAGE", "some_package")
    monkeypatch.setattr(import_hook, "LIBRARY", "some_library")
    finders = list(sys.meta_path)
    monkeypatch.setattr(sys, "meta_path", [f for f in finders if not isinstance(f, import_hook._Watch)])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("some_library", "some_package"))]:
        del sys.modules[name]


def watching() -> bool:
    return any(isinstance(finder, import_hook._Watch) for finder in sys.meta_path)


@pytest.mark.parametrize(
    ("first", "notes"),
    [
        ("some_library", ["registered True"]),
        ("some_library.deep", ["registered True", "deep"]),
        # The package's own modules are half-done when they import the library: registering waits for them.
        ("some_package.leaf", ["registered True"]),
        ("some_package.model", ["registered True"]),
        ("some_package.model.registration", ["registered True"]),
    ],
)
def test_registered_once_whatever_is_imported_first(libraries, first, notes):
    import_hook.register_when_imported()
    import_hook.register_when_imported()
    __import__(first)
    assert sys.modules["some_library"].notes == notes
    assert not watching()
    assert type(sys.modules[first].__spec__.loader).__name__ == "SourceFileLoader"


def test_registered_at_once_when_the_library_is_there(libraries):
    import some_library

    import_hook.register_when_imported()
    assert some_library.notes == ["registered True"]
    assert not watching()


def test_it_waits_until_the_library_is_imported_and_looking_it_up_is_not_importing(libraries):
    import importlib.util

    import_hook.register_when_imported()
    import some_package.plain  # noqa: F401

    assert importlib.util.find_spec("some_library") is not None
    assert "some_library" not in sys.modules
    assert watching()


def test_a_module_that_fails_does_not_keep_the_next_one_from_registering(libraries):
    import_hook.register_when_imported()
    with pytest.raises(RuntimeError, match="broken"):
        import some_package.broken
    assert sys.modules["some_library"].notes == []
    import some_package.leaf  # noqa: F401

    assert sys.modules["some_library"].notes == ["registered True"]
