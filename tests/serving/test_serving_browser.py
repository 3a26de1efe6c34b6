"""The page in a real browser, by keyboard alone, at two widths, light and dark. Needs node, chromium, and a folder with
playwright-core and axe-core (``npm install playwright-core axe-core``) named by ASTREA_NODE_FOLDER. The picture of the
page in the README is one of those that it makes: ``ASTREA_SCREENSHOTS=docs/images pytest -m slow THIS_FILE``."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from PIL import Image

from astrea.cli.actions.serve import uvicorn_config
from astrea.model.loaded import load
from astrea.retrieval.build import build_index
from astrea.serving.app import Server, application
from astrea.serving.limits import Limits
from astrea.serving.settings import Settings
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.example import EXAMPLE_ANSWERS, example_picture

pytestmark = pytest.mark.slow

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FOLDER = os.environ.get("ASTREA_NODE_FOLDER", "")
MISSING = "no browser to see the page with: needs node, chromium and ASTREA_NODE_FOLDER with playwright-core, axe-core"


FOUND = 6
"""Pictures that can be found."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server of the bundled model with an index of a few pictures, at a free port."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(FOUND):
        Image.fromarray(split_scene("test", 0, number).image).save(folder / f"{number}.png")
    build_index(load(device="cpu").model, "shipped", folder, folder / ".astrea-index")
    settings = Settings(name="shipped", example=example_picture(), index=folder)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn_config(application(Server(load(device="cpu"), settings)), "127.0.0.1", 0, Limits())
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(60)


@pytest.mark.skipif(not (BROWSER and shutil.which("node") and (Path(FOLDER) / "node_modules").is_dir()), reason=MISSING)
def test_a_person_can_ask_by_keyboard_see_what_experts_saw_and_switch_one_off(address, tmp_path):
    script = Path(__file__).with_name("page_visit.mjs")
    shots = os.environ.get("ASTREA_SCREENSHOTS", str(tmp_path))
    words = ["node", str(script), str(Path(FOLDER).resolve()), str(BROWSER), address, shots]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == []
    assert {request.partition("?")[0].startswith((address, "data:", "blob:")) for request in found["requests"]} == {
        True
    }
    for visit in found["visits"].values():
        assert visit["first"] == EXAMPLE_ANSWERS["what colour is the cat?"]
        assert visit["second"].startswith("the picture shows")
        assert visit["drawn"]
        assert not visit["wide"]
        assert not visit["stop"]
        assert visit["hits"] == FOUND
        assert "0 %" in next(row for row in visit["weights"] if "classification" in row)
        assert "off=classification" in visit["link"]
        assert [problem for problem in visit["problems"] if problem[0] in ("serious", "critical")] == []
