"""The page, as a person drives it: in headless Chromium, its pixels against NumPy's."""

import asyncio
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pydicom
import pytest
import uvicorn

import dicom_files
import zoo
from zoo.inference import predict
from zoo.serving.server import batches, grpc, rest, served, viewing
from zoo.trust.calibration import Calibration
from zoo.trust.half_width import HalfWidth
from zoo.trust.limits import Limits

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = "encoder_decoder_ldct"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The window function of the page."""
    scaled = np.floor(255 * (values.astype(float) - low) / (high - low) + 0.5)
    return scaled.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Three slices of a CT, and what `predict` makes of them in HU."""
    folder = dicom_files.series(tmp_path_factory.mktemp("page") / "in", 3)
    made = folder.parent / "out"
    predict.translate(zoo.load(MODEL), folder, made, progress=False)
    stacks = []
    for path in (folder, made):
        volume = zoo_volume(path)
        stacks.append(np.stack([volume.read(i) for i in range(volume.length)]))
    return folder, *stacks


@pytest.fixture(scope="module")
def widths():
    """What gives half-widths of the model's intervals."""
    model = zoo.load(MODEL)
    calibration = Calibration(
        spread="views", factor=3.5, alpha=0.1, delta=0.1, risk=0.04, patients=60, images=120,
        pixels="body", half_width=31.25, unit="HU", dataset="ldct/phantom", split="validation",
        weights=model.weights_hash,
    )  # fmt: skip
    return HalfWidth(model, calibration)


def limits(calibration):
    """Limits that no image keeps: of a model whose outputs have ten times the edges."""
    return Limits(
        limits={"edges": (10.0, None)}, false_alarms=0.05, patients=20, images=40, most=1,
        dataset="ldct/phantom", split="validation", weights=calibration.weights,
    )  # fmt: skip


def zoo_volume(path):
    from zoo.imaging import files

    return files.open_volume(path)


@pytest.fixture(scope="module")
def addresses(widths):
    """A server in a thread of its own: where it answers by REST, and by gRPC."""
    model = served.Served(
        zoo.load(MODEL), MODEL, uncertainty=widths.calibration, limits=limits(widths.calibration)
    )
    loop = asyncio.new_event_loop()

    async def start():
        waiting = batches.Batches(model)
        waiting.start()
        app = rest.Rest(model, waiting)
        app.ready = True
        server = uvicorn.Server(uvicorn.Config(app.app, port=0, log_level="warning"))
        task = loop.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        remote, other = grpc.make(model, waiting, "127.0.0.1:0", rest.BODY)
        await remote.start()
        return server, task, waiting, remote, (port, other)

    threading.Thread(target=loop.run_forever, daemon=True).start()
    running = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    server, task, waiting, remote, (port, other) = running
    yield f"http://127.0.0.1:{port}", f"127.0.0.1:{other}"
    server.should_exit = True

    async def stop():
        await task
        await remote.stop(0)
        await waiting.stop()

    asyncio.run_coroutine_threadsafe(stop(), loop).result(60)


@pytest.fixture(scope="module")
def browser():
    selenium = pytest.importorskip("selenium.webdriver")
    if not CHROMIUM or not DRIVER:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1500,1000"):
        options.add_argument(flag)
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    yield driver
    driver.quit()


def pixels(browser, canvas: str) -> np.ndarray:
    """uint8 [H, W, 3] of a canvas."""
    rows, columns, data = browser.execute_script(
        "const c = document.getElementById(arguments[0]);"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return [c.height, c.width, Array.from(d)];",
        canvas,
    )
    return np.array(data, np.uint8).reshape(rows, columns, 4)[..., :3]


def press(browser, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    chain = ActionChains(browser)
    for key in keys:
        chain.send_keys(key)
    chain.perform()


def dropped(browser, path) -> None:
    """Drop a file or folder on the page, as from another window."""
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 300, "y": 80, "data": data}
        browser.execute_cdp_cmd("Input.dispatchDragEvent", event)


def test_a_series_is_shown_windowed_scrolled_and_downloaded(browser, addresses, series, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait

    folder, source, result = series
    address, _ = addresses
    browser.get(address)
    paths = sorted(folder.iterdir())
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, paths)))
    viewer = browser.find_element(By.ID, "viewer")
    WebDriverWait(browser, 120).until(lambda _: viewer.is_displayed())
    # The model's window, on the middle slice.
    window = (-1024.0, 1500.0)
    for canvas, stack in (("source", source), ("result", result)):
        shown = pixels(browser, canvas)
        np.testing.assert_array_equal(shown[..., 0], grey(stack[1], *window))
        assert (shown == shown[..., :1]).all()
    # A preset, and the next slice by the keyboard.
    Select(browser.find_element(By.ID, "preset")).select_by_visible_text("soft tissue")
    browser.find_element(By.ID, "panes").click()
    press(browser, Keys.ARROW_DOWN)
    np.testing.assert_array_equal(pixels(browser, "source")[..., 0], grey(source[2], -160, 240))
    assert browser.find_element(By.ID, "place").text == "3 of 3"
    # Where nothing changed the difference is white; red is more, blue less.
    difference, change = pixels(browser, "difference").astype(int), result[2] - source[2]
    red, blue = (difference[..., 0] - difference[..., 2]) > 0, change < -1
    assert (difference[change == 0] == 255).all()
    assert red[change > 1].all()
    assert (difference[..., 2] > difference[..., 0])[blue].all()
    # Swiped to the middle: source at the left, result at the right of a line.
    press(browser, "s")
    swiped, half = pixels(browser, "result")[..., 0], source.shape[2] // 2
    np.testing.assert_array_equal(swiped[:, :half], grey(source[2], -160, 240)[:, :half])
    np.testing.assert_array_equal(swiped[:, half + 1 :], grey(result[2], -160, 240)[:, half + 1 :])
    assert "right of the line the result" in browser.find_element(By.ID, "seen").text
    # Blinking shows the one, then the other, each under its name.
    press(browser, "b")
    seen = set()
    named = (("source", source), ("result", result))
    wanted = {(name, grey(stack[2], -160, 240).tobytes()) for name, stack in named}

    def both(_):
        name = browser.find_element(By.ID, "seen").text
        shown = pixels(browser, "result")[..., 0].tobytes()
        if name == browser.find_element(By.ID, "seen").text:  # not changed meanwhile
            seen.add((name, shown))
        return wanted <= seen

    WebDriverWait(browser, 20, 0.2).until(both)
    press(browser, "d")
    assert browser.find_element(By.ID, "seen").text == "result"
    # A level typed in.
    level = browser.find_element(By.ID, "level")
    level.clear()
    level.send_keys("0" + Keys.ENTER)
    np.testing.assert_array_equal(pixels(browser, "source")[..., 0], grey(source[2], -200, 200))
    # The line is dragged to a quarter.
    browser.find_element(By.ID, "swipe").click()
    canvas = browser.find_element(By.ID, "result")
    quarter = -canvas.size["width"] // 4
    ActionChains(browser).click_and_hold(canvas).move_by_offset(quarter, 0).release().perform()
    swiped, edge = pixels(browser, "result")[..., 0], source.shape[2] // 4
    np.testing.assert_array_equal(swiped[:, edge + 2 :], grey(result[2], -200, 200)[:, edge + 2 :])
    np.testing.assert_array_equal(swiped[:, : edge - 2], grey(source[2], -200, 200)[:, : edge - 2])
    browser.find_element(By.ID, "side").click()
    # Dragged up and to the right: a higher level, a larger width; the wheel scrolls.
    canvas = browser.find_element(By.ID, "source")
    ActionChains(browser).click_and_hold(canvas).move_by_offset(40, -30).release().perform()
    low, high = browser.execute_script("return [state.low, state.high]")
    assert low + high > 2 * 20 and high - low > 450
    origin = ScrollOrigin.from_element(canvas)
    ActionChains(browser).scroll_from_origin(origin, 0, -120).perform()
    WebDriverWait(browser, 20).until(
        lambda _: browser.find_element(By.ID, "place").text == "2 of 3"
    )
    np.testing.assert_array_equal(pixels(browser, "source")[..., 0], grey(source[1], low, high))
    # No request went anywhere else.
    names = browser.execute_script(
        "return performance.getEntriesByType('resource').map((each) => each.name)"
    )
    assert names
    assert all(name.startswith((address, "data:", "blob:")) for name in names)
    # What is saved is what `predict` writes.
    folder = tmp_path / "saved"
    where = {"behavior": "allow", "downloadPath": str(folder)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    for button in ("save", "nifti"):
        browser.find_element(By.ID, button).click()
    wanted = {"translated.zip", "translated.nii"}
    WebDriverWait(browser, 20).until(lambda _: {p.name for p in folder.glob("*")} == wanted)
    with zipfile.ZipFile(folder / "translated.zip") as files:
        assert len(files.namelist()) == 3
        stored = [pydicom.dcmread(io.BytesIO(files.read(n))) for n in files.namelist()]
    stored.sort(key=lambda each: each.ImagePositionPatient[2])
    hu = np.stack([each.pixel_array * each.RescaleSlope + each.RescaleIntercept for each in stored])
    np.testing.assert_array_equal(hu, result)
    # As NIfTI at the same place: its axes go along rows, along columns, and from slice to slice.
    image = nibabel.load(folder / "translated.nii")
    np.testing.assert_array_equal(image.get_fdata().transpose(2, 1, 0), result)
    place = zoo_volume(series[0]).affine
    np.testing.assert_allclose(image.affine, place[:, [1, 0, 2, 3]], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(
        image.header.get_zooms(), np.linalg.norm(image.affine[:3, :3], axis=0)
    )
    assert image.header.get_xyzt_units()[0] == "mm"


def test_the_page_may_ask_nobody_but_its_server(browser, addresses):
    browser.get(addresses[0])
    refused = browser.execute_async_script(
        "const done = arguments[1];"
        "document.addEventListener('securitypolicyviolation', (e) => done(e.effectiveDirective));"
        "fetch(arguments[0]).catch(() => setTimeout(() => done('asked'), 1000));",
        "http://127.0.0.1:1/",
    )
    assert refused == "connect-src"


def test_all_of_it_is_reached_and_done_by_keyboard(browser, addresses, series):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    folder, source, result = series
    browser.get(addresses[0])
    shown = browser.find_element(By.ID, "uncertain")
    WebDriverWait(browser, 20).until(lambda _: shown.is_displayed())
    paths = sorted(folder.iterdir())
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, paths)))
    viewer = browser.find_element(By.ID, "viewer")
    WebDriverWait(browser, 120).until(lambda _: viewer.is_displayed())

    def focused() -> str:
        return browser.execute_script("return document.activeElement.id")

    # The tabulator goes through all there is, each with an outline that shows.
    browser.execute_script("document.activeElement.blur()")
    order = ["files", "folder", "uncertain", "reporting", "volume", "preset", "level", "width"]
    order += ["slice", "side", "swipe", "blink", "save", "nifti", "panes"]
    for name in order:
        press(browser, Keys.TAB)
        assert focused() == name
        outline = browser.execute_script(
            "const e = document.activeElement, l = e.closest('label.button');"
            "return getComputedStyle(l || e).outlineStyle"
        )
        assert outline == "solid"
    window = lambda: browser.execute_script("return [state.low, state.high]")  # noqa: E731
    low, high = window()
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_UP).perform()
    level = sum(window()) / 2
    assert level == pytest.approx((low + high) / 2 + (high - low) / 50)
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    low, high = window()
    assert (low + high) / 2 == pytest.approx(level) and high - low == pytest.approx(2524 * 1.05)
    for key, place in ((Keys.HOME, 0), (Keys.PAGE_DOWN, 2), (Keys.ARROW_UP, 1), (Keys.END, 2)):
        press(browser, key)
        np.testing.assert_array_equal(
            pixels(browser, "source")[..., 0], grey(source[place], low, high)
        )
    # Swiped to the left by the arrows, in capitals too.
    press(browser, "S", *[Keys.ARROW_LEFT] * 5)
    swiped, edge = pixels(browser, "result")[..., 0], round(0.4 * source.shape[2])
    np.testing.assert_array_equal(swiped[:, :edge], grey(source[2], low, high)[:, :edge])
    np.testing.assert_array_equal(swiped[:, edge + 1 :], grey(result[2], low, high)[:, edge + 1 :])
    # Buttons, by the keys that press them.
    browser.execute_script("document.getElementById('blink').focus()")
    press(browser, Keys.SPACE)
    assert browser.find_element(By.ID, "blink").get_attribute("aria-pressed") == "true"
    press(browser, "d")
    assert browser.find_element(By.ID, "side").get_attribute("aria-pressed") == "true"


def test_warnings_are_shown_and_faults_said(browser, addresses, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    bad = tmp_path / "broken.nii.gz"
    bad.write_bytes(b"nothing")
    browser.get(addresses[0])
    browser.find_element(By.ID, "files").send_keys(str(bad))
    status = browser.find_element(By.ID, "status")
    warnings = browser.find_element(By.ID, "warnings")
    said = WebDriverWait(browser, 60).until(
        lambda _: re.search("broken.nii.gz|no image", warnings.text + status.text)
    )
    assert said
    assert str(tmp_path) not in warnings.text + status.text
    # What the model was not trained on.
    coarse = dicom_files.single(tmp_path, "coarse.dcm", PixelSpacing=[4.0, 4.0])
    browser.find_element(By.ID, "files").send_keys(str(coarse))
    viewer = browser.find_element(By.ID, "viewer")
    WebDriverWait(browser, 60).until(lambda _: viewer.is_displayed())
    assert re.search("coarse.dcm: spacing: trained on .* Received: 4 mm", warnings.text)


def test_uncertainty_is_shown_where_it_is_asked_for(browser, addresses, series, widths):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    folder, source, _ = series
    browser.get(addresses[0])
    box = browser.find_element(By.ID, "uncertain")
    WebDriverWait(browser, 20).until(lambda _: box.is_displayed())
    box.click()
    paths = sorted(folder.iterdir())
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, paths)))
    canvas = browser.find_element(By.ID, "half_width")
    WebDriverWait(browser, 120).until(lambda _: canvas.is_displayed())
    assert "all but 10% of a patient's pixels" in browser.find_element(By.ID, "promise").text
    # White is certain; magenta an eighth of the window, 1024 to 1500 HU, or more.
    share = (widths.translate(source[1]) / (2524 / 8)).clip(0, 1)
    shown = pixels(browser, "half_width").astype(int)
    assert (shown[..., [0, 2]] == 255).all()
    np.testing.assert_allclose(shown[..., 1], 255 * (1 - share), atol=1)
    browser.find_element(By.ID, "swipe").click()
    assert not canvas.is_displayed()


def test_a_safety_report_is_shown_where_it_is_asked_for(browser, addresses, series):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    folder, _, _ = series
    browser.get(addresses[0])
    box = browser.find_element(By.ID, "reporting")
    WebDriverWait(browser, 20).until(lambda _: box.is_displayed())
    report = browser.find_element(By.ID, "report")
    assert not report.is_displayed()
    box.click()
    dropped(browser, folder)
    WebDriverWait(browser, 120).until(lambda _: report.is_displayed())
    assert "alarm: " in browser.find_element(By.ID, "warnings").text
    report.find_element(By.TAG_NAME, "summary").click()
    browser.switch_to.frame("reported")
    text = browser.find_element(By.TAG_NAME, "main").text
    shown = browser.find_elements(By.TAG_NAME, "img")
    widths_of = [image.get_property("naturalWidth") for image in shown]
    browser.switch_to.default_content()
    assert "1 of 1 files, series or patients raised an alarm" in text and "in 3" in text
    assert len(shown) >= 3 and all(widths_of)  # nothing that the page forbids


def test_a_body_has_the_half_widths_of_what_came(widths, series, tmp_path):
    """Of DICOM they are in another file than the slices; of NIfTI in other axes; some have two."""
    folder, source, _ = series
    given = tmp_path / "given"
    shutil.copytree(folder, given / "ct")
    values = np.random.default_rng(0).integers(-500, 500, (20, 24, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), given / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Pair(values, np.eye(4)), given / "b.hdr")
    (tmp_path / "scratch").mkdir()
    answer = viewing.translated(zoo.load(MODEL), given, tmp_path / "scratch", widths).read_bytes()
    length = int.from_bytes(answer[:4], "little")
    head = json.loads(answer[4 : 4 + length])
    body = answer[4 + length :]
    assert len(head["volumes"]) == 3
    for told in head["volumes"]:
        found = []
        for name in ("source", "half_width"):
            stack = told[name]
            stored = np.frombuffer(body, "<u2", np.prod(stack["shape"]), stack["offset"])
            found.append(stored.reshape(stack["shape"]) * stack["slope"] + stack["intercept"])
        atol = 0.1 if told["name"].startswith("ct") else 0.6  # whole numbers but in the one
        np.testing.assert_allclose(widths.translate(np.float32(found[0])), found[1], atol=atol)
    with zipfile.ZipFile(io.BytesIO(body[head["archive"]["offset"] :])) as files:
        names = sorted(files.namelist())
    assert len(names) == 3 + 1 + 2 + 4
    assert sum(name.startswith("half_width/") for name in names) == 1 + 1 + 2


def test_the_signature_uncertainty_is_served(addresses, widths):
    hu = np.random.default_rng(0).uniform(-900, 900, (1, 16, 20, 1)).astype("float32")
    body = {"signature_name": "uncertainty", "instances": hu.tolist()}
    answer = httpx.post(f"{addresses[0]}/v1/models/{MODEL}:predict", json=body, timeout=60).json()
    (given,) = answer["predictions"]
    np.testing.assert_allclose(given["half_width"], widths.translate(hu)[0], atol=0.2)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a/b.dcm", "a/b.dcm"),
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/x", "etc/x"),
        ("..\\..\\x.dcm", "x.dcm"),
        ("", "file7"),
        ("a/\x00/../b", "a/b"),
        ("x" * 300, "file7"),
    ],
)
def test_no_name_leads_out_of_the_folder(name, kept):
    assert viewing.safe_name(name, 7).as_posix() == kept


@pytest.mark.parametrize("way", [0, 1], ids=["REST", "gRPC"])
def test_a_series_is_translated_elsewhere_and_written_here(addresses, series, tmp_path, way):
    folder, _, result = series
    command = [sys.executable, "examples/remote_series.py", f"--model={MODEL}"]
    command += [f"--address={addresses[way]}", f"--input={folder}", f"--output={tmp_path / 'out'}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("Wrote 3 files\n"), done.stdout + done.stderr
    volume = zoo_volume(tmp_path / "out")
    hu = np.stack([volume.read(i) for i in range(volume.length)])
    np.testing.assert_allclose(hu, result, atol=1)
