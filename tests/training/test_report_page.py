"""`shunt calibrate` on the real Triton, and its report in a real browser: right, safe, and in need of nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

from stream_app.cli import shunt
from stream_app.errors import SettingsError
from stream_app.training.report import page as page_module
from tests.web.test_page_in_browser import CHROMIUM, FLAGS

HOSTILE = "</script><script>document.title='owned'</script>"


def labelled(sure: int, unsure: int) -> list[dict]:
    """Rows that the scripted model is sure of and right about, and rows that it is not and wrong in half.

    `big` is right in nine of ten of both and refuses one in fifty; the other LLM's name is an attack on the page.
    """
    rows = []
    for n in range(sure + unsure):
        true = ("negative", "positive")[n % 2]
        word = (("bad", "good")[n % 2]) if n < sure else "unsure"
        other = ("negative", "positive")[(n + 1) % 2]
        said = None if n % 50 == 7 else true if n % 10 else other
        text = f"{word} item number {n}" + " and more of it" * (n % 3 * 12)
        row = {"id": f"r{n}", "text": text, "label": true, "llm": {"big": said, HOSTILE: true}}
        rows.append({**row, "domain": "kitchen" if n % 3 else HOSTILE, "style": "raw"})
    return rows


def is_test(row: dict) -> bool:
    """The split as the documents describe it, written again: the last 15 % by a hash of the text."""
    digest = hashlib.sha256(b"shunt calibrate\0" + row["text"].encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 >= 0.85


@pytest.fixture(scope="module")
def calibrated(stack, tmp_path_factory):
    """A folder with the rows, the policy and its report, and what the command said."""
    folder = tmp_path_factory.mktemp("report")
    rows = labelled(1600, 700)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "shunt.toml").write_text(
        f'[triton]\nurl = "{stack.triton_grpc}"\n'
        '[[tasks]]\nname = "mood"\ntiers = ["scripted"]\ntarget_error = 0.04\n'
    )
    common = ["--config", str(folder / "shunt.toml"), "calibrate", str(folder / "rows.jsonl"), "--llm", "big"]
    run = CliRunner().invoke(shunt, [*common, "--out", str(folder / "policy.json")], catch_exceptions=False)
    assert run.exit_code == 0, run.output
    return folder, rows, run.output, common


def figures_in(page: str) -> dict:
    """The one task's figures, as the page carries them for a program."""
    (found,) = json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)[1])
    return found


def test_its_figures_are_those_of_a_count_by_hand(calibrated):
    """Coverage, errors, the LLM's part and cost, counted here from the rows alone, stand in its text and data."""
    folder, rows, said, _ = calibrated
    assert f"Its report is {folder / 'policy.report.html'}" in said
    page = (folder / "policy.report.html").read_text()
    found = figures_in(page)
    test = [row for row in rows if is_test(row)]
    sure = [row for row in test if not row["text"].startswith("unsure")]
    unsure = [row for row in test if row["text"].startswith("unsure")]
    assert (found["coverage"]["hits"], found["coverage"]["rows"]) == (len(sure), len(test))
    assert found["accepted_wrong"]["hits"] == 0
    big, other = found["tradeoffs"]
    assert (big["llm"], other["llm"]) == ("big", HOSTILE)
    small_right = len(sure) + sum(row["label"] == "positive" for row in unsure)
    given = [row["llm"]["big"] for row in unsure]
    # A refusal leaves the small answer standing, which is `positive` for all unsure rows.
    kept = [answer or "positive" for answer in given]
    right = len(sure) + sum(answer == row["label"] for answer, row in zip(kept, unsure, strict=True))
    assert (big["policy"]["accuracy"]["hits"], big["small"]["accuracy"]["hits"]) == (right, small_right)
    assert big["llm_alone"]["accuracy"]["hits"] == sum(row["llm"]["big"] == row["label"] for row in test)
    assert big["beside"]["unanswered"] == sum(row["llm"]["big"] is None for row in test)
    tokens = {id(row): len(row["text"]) + 317 for row in test}
    cost = sum(tokens[id(row)] for row in unsure) / sum(tokens.values())
    assert big["policy"]["cost_share"] == pytest.approx(cost)
    shown = text_of(page)
    assert "The LLM helps here" in shown
    assert f"{100 * right / len(test):.1f} %" in shown
    assert f"{100 * cost:.1f} %" in shown
    of_slice = {(one["by"], one["name"]): one for one in found["slices"]}
    assert of_slice["domain", HOSTILE]["rows"] == sum(row["domain"] == HOSTILE for row in test)
    assert ("style", "raw") not in of_slice, "what all rows share cuts nothing"
    assert sum(one["rows"] for (by, _), one in of_slice.items() if by == "length") == len(test)


class Text(HTMLParser):
    """The page's text as a reader has it, and every address in it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.addresses: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag, attrs):
        self._silent += tag in {"style", "script"}
        self.addresses += [value for name, value in attrs if name in {"src", "href", "xlink:href", "action", "data"}]

    def handle_endtag(self, tag):
        self._silent -= tag in {"style", "script"}

    def handle_data(self, data):
        if not self._silent:
            self.said.append(data)


def text_of(page: str) -> str:
    """Its visible words, one space between them."""
    parser = Text()
    parser.feed(page)
    return " ".join("".join(parser.said).split())


def test_it_needs_nothing_from_outside(calibrated):
    """No address but places in itself and data; no import, no font, no frame; every colour is the page's own."""
    page = (calibrated[0] / "policy.report.html").read_text()
    parser = Text()
    parser.feed(page)
    assert all(address.startswith(("#", "data:")) for address in parser.addresses)
    assert not re.findall(r"url\((?!#|data:)|@import|@font-face|<(?:iframe|object|embed|link rel=.stylesheet)", page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 5, "two LLMs, the plans, the promise and the reliability"
    assert not any(re.search(r"#[0-9a-f]{6}|<style|DejaVu", drawing) for drawing in drawings)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert len(page) < 1_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (`apt-get install chromium`)")
async def test_a_browser_has_nothing_to_complain_of(calibrated, tmp_path):
    """It opens without a word on the console, draws every figure, and hostile names stay text."""
    folder = calibrated[0]
    browser = await asyncio.create_subprocess_exec(
        CHROMIUM, *FLAGS, "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
        f"file://{folder / 'policy.report.html'}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        shown, told = await asyncio.wait_for(browser.communicate(), 90)
    finally:
        if browser.returncode is None:
            browser.kill()
            await browser.wait()
    assert b"CONSOLE" not in told, told
    page = shown.decode()
    assert "<title>Shunt: calibration of policy@1</title>" in page
    assert page.count("<svg") == 5
    assert page.count("<script") == 1
    assert "&lt;/script&gt;" in page
    assert figures_in(page)["task"] == "mood"


def test_where_it_goes_and_what_it_needs(calibrated, monkeypatch):
    """`--report` names the file; without the extra the policy is made all the same, and one line says why."""
    folder, _, _, common = calibrated
    named = CliRunner().invoke(
        shunt,
        [*common, "--out", str(folder / "b.json"), "--report", str(folder / "named.html")],
        catch_exceptions=False,
    )
    assert named.exit_code == 0
    assert (folder / "named.html").exists()
    assert not (folder / "b.report.html").exists()
    monkeypatch.setattr(page_module, "PACKAGES", ("no_such_package",))
    without = CliRunner().invoke(shunt, [*common, "--out", str(folder / "c.json")], catch_exceptions=False)
    assert without.exit_code == 0
    assert (folder / "c.json").exists()
    assert [line for line in without.output.splitlines() if line.startswith("No report")] == [
        'No report was written: the report needs the extra `report`: pip install "shunt-stream[report]"'
    ]
    with pytest.raises(SettingsError, match="the report needs the extra"):
        CliRunner().invoke(
            shunt, [*common, "--out", str(folder / "d.json"), "--report", "x.html"], catch_exceptions=False
        )
    assert not (folder / "d.json").exists(), "told before anything is scored"


def test_the_libraries_are_loaded_when_a_report_is_made():
    """A worker, and `shunt calibrate --help`, start without them."""
    code = "import sys, stream_app.cli.calibrate; assert not {'matplotlib', 'jinja2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
