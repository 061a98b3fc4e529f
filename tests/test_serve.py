"""The page on this machine: right numbers, visitors apart, and alive whatever it is given."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

import relprop
from relprop.app import Limits, Refused
from relprop.app.asked import About, Explain
from relprop.app.desk import Desk, Job
from relprop.app.guards import Guards

from .command_line import MODELS

pytest.importorskip("nicegui", reason="THE PAGE IS NOT TESTED: nicegui is missing (pip install 'relprop[app]')")
sync_api = pytest.importorskip("playwright.sync_api", reason="THE PAGE IS NOT TESTED: playwright is missing")
Image = pytest.importorskip("PIL.Image")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""That of the machine; else the one that Playwright installed."""

SLOW = (9, 9)
"""A picture of this size keeps the preprocessing busy for ever."""
OWN = f"""
import time

import numpy as np


def prepared(picture):
    while picture.size == {SLOW}:
        time.sleep(1)
    return torch.from_numpy(np.asarray(picture.resize((8, 8)), np.float32) / 255).permute(2, 0, 1)


def served():
    return picture(), prepared
"""
WAIT = 40_000
"""Milliseconds, on a busy machine."""


def pixels(seed: int, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def png(image) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "models.py").write_text(textwrap.dedent(MODELS) + OWN, encoding="utf-8")
    (folder / "classes.txt").write_text("<b>cat</b>\ndog\ncow\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address(folder):
    """A page that is served; afterwards nothing lies in its folder that was not there."""
    home = folder / "home"
    home.mkdir()
    before = sorted(folder.rglob("*"))
    source = str(Path(relprop.__file__).parents[1])
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }  # NiceGUI looks at them
    environment = {**ours, "PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home), "TMPDIR": str(home)}
    command = [sys.executable, "-m", "relprop", "serve", "models:served", "--port", "0", "--classes", "classes.txt"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, line
        yield line.split()[3]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert sorted(folder.rglob("*")) == before


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        try:
            launched = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        except sync_api.Error as error:
            pytest.skip(f"THE PAGE IS NOT TESTED IN A BROWSER: no Chromium (apt-get install chromium). {error.message}")
        yield launched


class Visitor:
    """Somebody who looks at the page."""

    def __init__(self, browser, address):
        self.page = browser.new_context(accept_downloads=True).new_page()
        self.page.set_default_timeout(WAIT)
        self.asked, self.complaints = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.goto(address)

    def drop(self, data: bytes, name: str = "a.png") -> None:
        self.page.set_input_files("input[type=file]", {"name": name, "mimeType": "image/png", "buffer": data})

    def screenshot(self, name: str) -> None:
        """Kept for people to look at."""
        folder = Path(__file__).parents[1] / "out" / "screenshots"
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png", full_page=True)

    def explained(self, panel: int = 0) -> np.ndarray:
        """The values of the map, when it is there, [H, W]."""
        shown = self.page.locator("relprop-map").nth(panel)
        shown.wait_for()
        h, w = map(int, shown.get_attribute("data-shape").split(","))
        whole = np.frombuffer(base64.b64decode(shown.get_attribute("data-values")), "<i2").reshape(h, w)
        return whole * float(shown.get_attribute("data-unit"))

    def sentence(self) -> str:
        said = self.page.locator(".sentence:visible")
        said.wait_for()
        return said.inner_text()


@pytest.fixture
def visit(browser, address):
    return lambda: Visitor(browser, address)


@pytest.fixture(scope="module")
def lrp(folder):
    space = {}
    exec(compile(MODELS, "models", "exec"), space)
    return relprop.LRP(space["picture"]())


def expected(lrp, image, target):
    x = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return lrp.attribute(x, target)[0].sum(0).numpy()


def same(found, wanted):
    return np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_a_picture_its_prediction_the_map_of_another_class_and_the_report(visit, lrp, address):
    visitor, image = visit(), pixels(0)
    visitor.drop(png(image))
    z = lrp.explain(torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]).output[0]
    order = z.argsort(descending=True).tolist()
    assert same(visitor.explained(), expected(lrp, image, order[0]))
    names = ["<b>cat</b>", "dog", "cow"]  # as text, not as markup
    assert visitor.page.locator(".guess .name").all_inner_texts() == [names[i] for i in order]

    visitor.page.locator(".guess").nth(1).click()
    visitor.page.locator('.guess[aria-pressed="true"]', has_text=names[order[1]]).wait_for()
    second = visitor.explained()
    assert same(second, expected(lrp, image, order[1]))
    assert not same(second, expected(lrp, image, order[0]))

    visitor.page.locator(".controls .q-select").first.click()
    visitor.page.get_by_role("option", name="epsilon_plus", exact=True).click()
    visitor.page.get_by_text("composite epsilon_plus").wait_for()
    assert same(visitor.explained(), expected(lrp.using("epsilon_plus"), image, order[1]))

    visitor.page.get_by_role("button", name="Compare").click()
    visitor.page.locator("relprop-map").nth(1).wait_for()
    visitor.page.locator(".panel").nth(1).locator(".q-select").first.click()
    visitor.page.get_by_role("option", name="lrp0", exact=True).click()
    visitor.page.get_by_text("composite lrp0,").wait_for()
    visitor.screenshot("side_by_side")
    assert same(visitor.explained(1), expected(lrp.using("lrp0"), image, order[0]))
    assert same(visitor.explained(), expected(lrp.using("epsilon_plus"), image, order[1]))
    visitor.page.get_by_role("button", name="Close").click()
    visitor.page.get_by_role("button", name="Compare").wait_for()

    with visitor.page.expect_download() as waiting:
        visitor.page.get_by_text("Download report").click()
    report = Path(waiting.value.path()).read_text(encoding="utf-8")
    assert waiting.value.suggested_filename == "report.html"
    assert "composite epsilon_plus" in report
    assert "default-src 'none'" in unescape(report)

    elsewhere = [u for u in visitor.asked if not u.startswith((address, "ws" + address[4:], "data:", "blob:"))]
    assert not elsewhere
    assert len(visitor.asked) > 5
    assert not visitor.complaints


def test_two_visitors_at_once_each_get_their_own(visit, lrp):
    visitors, images = [visit(), visit()], [pixels(1), pixels(2)]
    for visitor, image in zip(visitors, images, strict=True):
        visitor.drop(png(image))
    for visitor, image in zip(visitors, images, strict=True):
        found = visitor.explained()
        maps = [expected(lrp, image, i) for i in range(3)]
        assert any(same(found, one) for one in maps)


def test_a_damaged_picture_and_a_huge_one_get_a_sentence_and_the_page_lives(visit):
    visitor, fine = visit(), png(pixels(3))
    for data, told in (
        (fine[: len(fine) // 2], "'bad.png' cannot be read as a picture"),
        (b"no picture at all", "'bad.png' cannot be read as a picture"),
        (png(Image.new("1", (10_000, 10_000))), "10000 by 10000: too large to be decoded; 25 megapixels are the limit"),
    ):
        visitor.drop(data, "bad.png")
        visitor.page.locator(".sentence:visible", has_text=told).wait_for()
        visitor.screenshot("refused")
        assert "Traceback" not in visitor.page.content()
        visitor.drop(fine)
        visitor.explained()
        assert visitor.page.locator(".sentence:visible").count() == 0


def test_a_job_that_is_cancelled_is_killed_and_the_next_one_has_its_turn(visit):
    slow, other = visit(), visit()
    slow.drop(png(pixels(4, SLOW)))
    slow.page.get_by_text("Explaining,").wait_for()
    other.drop(png(pixels(5)))
    other.page.get_by_text("Waiting: 1 job before this one").wait_for()
    slow.page.get_by_role("button", name="Cancel").click()
    assert slow.sentence() == "Cancelled."
    other.explained()
    slow.drop(png(pixels(6)))
    slow.explained()


def test_a_visitor_who_leaves_takes_the_job_along(visit):
    slow, other = visit(), visit()
    slow.drop(png(pixels(4, SLOW)))
    slow.page.get_by_text("Explaining,").wait_for()
    slow.page.close()
    other.drop(png(pixels(7)))
    other.explained()


def answer_of(address, **headers):
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    body = headers.pop("body", None)
    connection.request("POST" if body else "GET", "/", body, {k.replace("_", "-"): v for k, v in headers.items()})
    return connection.getresponse()


def test_large_uploads_and_foreign_hosts_are_turned_away(address):
    assert answer_of(address, body=b"x" * 11_000_000).status == 413
    assert answer_of(address, Host="evil.example").status == 400
    assert answer_of(address, Origin="http://evil.example").status == 403
    fine = answer_of(address)
    assert fine.status == 200
    assert "default-src 'self'" in fine.getheader("content-security-policy")


def test_an_upload_that_does_not_say_how_large_it_is_is_counted():
    sent, read = [], []

    async def reading(scope, receive, send):
        while True:
            read.append(len((await receive())["body"]))

    async def receive():
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    async def send(message):
        sent.append(message)

    run(Guards(reading, 50_000)({"type": "http", "headers": []}, receive, send))
    assert 50_000 <= sum(read) <= 61_000
    assert sent[0]["status"] == 413


def for_ever():
    time.sleep(600)


def refusing():
    raise Refused("There is no such model.")


def run(coroutine):
    """In a thread, as the browser's driver has a loop of its own in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def ask(desk, question):
    return run(desk.answer(Job(question)))


def test_a_job_past_its_time_is_stopped():
    desk = Desk({"slow": for_ever, "none": refusing}, Limits(seconds=0.5))
    try:
        with pytest.raises(Refused, match=r"^Stopped after 0\.5 seconds, which is the limit for a job"):
            ask(desk, Explain("slow", "a text"))
    finally:
        desk.close()


def test_a_worker_that_dies_is_told_and_replaced():
    desk = Desk({"none": refusing}, Limits())

    async def killed() -> None:
        os.kill(desk._worker._process.pid, signal.SIGSTOP)  # so that it cannot answer first
        task = asyncio.create_task(desk.answer(Job(About("none"))))
        await asyncio.sleep(0.2)
        os.kill(desk._worker._process.pid, signal.SIGKILL)
        await task

    try:
        with pytest.raises(Refused, match="ended without an answer, most likely for want of memory"):
            run(killed())
        with pytest.raises(Refused, match=r"^There is no such model\.$"):
            ask(desk, About("none"))
    finally:
        desk.close()
