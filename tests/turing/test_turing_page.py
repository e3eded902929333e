"""The page as a doctor has it: opened from a file in a browser, answered, closed, opened again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ssmdiff
from studies import truths

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
turing = ssmdiff.job("turing")

pytestmark = pytest.mark.slow


@pytest.fixture
def open_browser(tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Starts a browser that keeps its storage and puts downloads into ``tmp_path``."""
    if not (BROWSER and DRIVER):
        pytest.skip("a page is opened in chromium by chromedriver, and they are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    started = []

    def start() -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu"]
        for flag in [*flags, f"--user-data-dir={tmp_path / 'profile'}"]:
            options.add_argument(flag)
        options.add_experimental_option(
            "prefs", {"download.default_directory": str(tmp_path / "downloads")}
        )
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        started.append(driver)
        driver.get("about:blank")
        driver.get_log("performance")  # what the browser's own first tab asked for
        return driver

    yield start
    for driver in started:
        driver.quit()


def resize(driver: Any, width: int) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500},
    )


def element(driver: Any, name: str) -> Any:
    return driver.find_element("id", name)


def keys(driver: Any, text: str) -> None:
    driver.find_element("tag name", "body").send_keys(text)


def begin(driver: Any, name: str) -> None:
    element(driver, "name").send_keys(name + "\n")


def text(driver: Any, name: str) -> str:
    return driver.execute_script(f"return document.getElementById('{name}').textContent")


def saved(folder: Path) -> Path:
    """What the browser downloads, once it is whole."""
    for _ in range(100):
        found = list(folder.glob("answers-*.json"))
        if found:
            return found[0]
        time.sleep(0.1)
    raise AssertionError("nothing was downloaded")


def schemes(driver: Any) -> set[str]:
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return {
        message["params"]["request"]["url"].partition(":")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }


def shown(driver: Any) -> str:
    return driver.execute_script("return document.getElementById('imageA').src")


@pytest.mark.parametrize("width", [1280, 390])
def test_twenty_images_are_answered_kept_saved_and_scored(
    folders, tmp_path: Path, open_browser, width: int
) -> None:
    page = turing.make(*folders, tmp_path / "study", n=10)
    key = tmp_path / "study" / "key.json"
    study = json.loads(key.read_text())
    driver = open_browser()
    resize(driver, width)
    driver.get(page.as_uri())
    first = driver.execute_script("return document.body.firstElementChild.innerText")
    assert first.startswith("This page holds 10 real images")
    begin(driver, "Dr. Büşra K.")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    fits = "const r = document.getElementById('{}').getBoundingClientRect(); return r.bottom"
    assert driver.execute_script(fits.format("next")) <= 844  # without scrolling

    # By the picture that is shown, so that what is scored is what was seen.
    pictures = driver.execute_script("return study.pictures")
    kinds = dict(zip(pictures, truths(key), strict=True))
    seen = []

    def answer(right: bool, confidence: str) -> None:
        kind = kinds[shown(driver)]
        seen.append(shown(driver))
        keys(driver, {"real": "rs", "synthetic": "sr"}[kind][0 if right else 1] + confidence)

    for i in range(12):
        answer(i % 4 != 0, str(1 + i % 3))
    assert text(driver, "place") == "Image 13 of 20"
    assert element(driver, "bar").get_property("value") == 12
    keys(driver, "\ue012")  # back by the left arrow: the answer that was given is shown
    pressed = driver.execute_script(
        "return [...document.querySelectorAll('[aria-pressed=true]')].map(b => b.innerText[0])"
    )
    assert len(pressed) == 2
    driver.quit()

    driver = open_browser()
    resize(driver, width)
    driver.get(page.as_uri())
    assert "Dr. Büşra K.: 12 of 20" in text(driver, "kept")
    driver.find_element("css selector", "#kept button").click()
    assert text(driver, "place") == "Image 13 of 20"
    for i in range(12, 20):
        answer(i % 4 != 0, "3")
    assert text(driver, "endTitle").startswith("All 20 answered")
    element(driver, "save").click()
    path = saved(tmp_path / "downloads")
    assert len(set(seen)) == 20

    found = turing.score([path], key, page=page)
    assert found.readers[0].name == "Dr. Büşra K."
    assert found.readers[0].answered == 20
    assert found.readers[0].figures["accuracy"]["value"] == 15 / 20
    given = json.loads(path.read_text())["answers"]
    assert [a["confidence"] for a in given].count("high") == 4 + 8
    assert schemes(driver) <= {"file", "data", "blob"}
    assert [e for e in driver.get_log("browser") if e["level"] == "SEVERE"] == []
    assert study["nonce"] not in driver.page_source


def test_a_file_of_answers_is_opened_again_and_others_are_told_apart(
    folders, tmp_path: Path, open_browser, sent
) -> None:
    page = turing.make(*folders, tmp_path / "study", n=10)
    key = tmp_path / "study" / "key.json"
    driver = open_browser()
    driver.get(page.as_uri())
    half = [("real", "low")] * 9 + [None] * 11
    element(driver, "file").send_keys(str(sent(key, "AB", half)))
    assert text(driver, "doctor") == "AB"
    assert element(driver, "bar").get_property("value") == 9
    element(driver, "stop").click()
    element(driver, "other").click()

    changed = sent(key, "CD", half, "changed.json")
    changed.write_text(changed.read_text().replace("low", "high", 1))
    element(driver, "file").send_keys(str(changed))
    assert text(driver, "trouble") == "This file was changed after it was saved."
    turing.make(*folders, tmp_path / "other", n=10)
    element(driver, "file").send_keys(
        str(sent(tmp_path / "other" / "key.json", "CD", half, "other.json"))
    )
    assert text(driver, "trouble") == "These answers belong to another page."

    # A second doctor sees the images in another order, and neither's answers touch the other's.
    begin(driver, "CD")
    orders = driver.execute_script("return [orderOf('AB'), orderOf('CD')]")
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
    assert orders[0] != orders[1]
    assert element(driver, "bar").get_property("value") == 0


def test_pairs_are_answered_by_touch(folders, tmp_path: Path, open_browser) -> None:
    page = turing.make(*folders, tmp_path / "study", n=12, forced_choice=True)
    key = tmp_path / "study" / "key.json"
    driver = open_browser()
    resize(driver, 390)
    driver.get(page.as_uri())
    begin(driver, "AB")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    pictures = driver.execute_script("return study.pictures")
    kinds = dict(zip(pictures, truths(key), strict=True))
    for _ in range(12):
        word = "a" if kinds[shown(driver)] == "synthetic" else "b"
        driver.find_element("css selector", f"[data-judged={word}]").click()
        driver.find_element("css selector", "[data-confidence=medium]").click()
    element(driver, "save").click()
    found = turing.score([saved(tmp_path / "downloads")], key)
    assert found.readers[0].figures["counts"]["right"] == 12
    smallest = driver.execute_script(
        "show('judge'); return Math.min(...[...document.querySelectorAll('#judge button')]"
        ".map(b => b.getBoundingClientRect().height))"
    )
    assert smallest >= 44


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_a_score_fits_any_width(
    folders, tmp_path: Path, open_browser, sent, width: int
) -> None:
    turing.make(*folders, tmp_path / "study", n=10)
    key = tmp_path / "study" / "key.json"
    other = {"real": "synthetic", "synthetic": "real"}
    files = []
    for name, step in (("A doctor of a long name, registrar", 2), ("B", 3), ("C", 5)):
        given = [other[k] if i % step == 0 else k for i, k in enumerate(truths(key))]
        files.append(sent(key, name, [(word, "high") for word in given]))
    turing.score(files, key)
    driver = open_browser()
    resize(driver, width)
    driver.get((tmp_path / "study" / "score" / "score.html").as_uri())
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert schemes(driver) <= {"file", "data"}
    assert [e for e in driver.get_log("browser") if e["level"] == "SEVERE"] == []
