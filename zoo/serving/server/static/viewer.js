"use strict";
// The viewer: what the server answers is drawn here, and leaves this page only as a download.

const $ = (name) => document.getElementById(name);
const state = { windows: {}, answer: null, volume: null, slice: 0, low: 0, high: 1, view: "side", swipe: 0.5, shown: "result", timer: 0 };

// Asking the server.

async function translate(files) {
  if (!files.length) return;
  const form = new FormData();
  for (const file of files) form.append("files", file, file.webkitRelativePath || file.path || file.name);
  say(`Translating ${files.length} ${files.length === 1 ? "file" : "files"} …`);
  let response;
  try {
    const wanted = new URLSearchParams();
    if ($("uncertain").checked) wanted.set("uncertainty", "yes");
    if ($("reporting").checked) wanted.set("report", "yes");
    response = await fetch(`translate?${wanted}`, { method: "POST", body: form });
  } catch (error) {
    return say(`The server does not answer: ${error.message}`);
  }
  if (!response.ok) return say((await response.json().catch(() => ({ error: response.statusText }))).error);
  const buffer = await response.arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  state.answer = { head, buffer, start: 4 + length };
  say(head.volumes.length ? "" : "There is no image to show.");
  $("warnings").replaceChildren(...head.warnings.map((text) => element("li", text)));
  $("viewer").hidden = !head.volumes.length;
  $("report").hidden = !head.report;
  // It has no scripts, and its frame would run none.
  $("reported").srcdoc = head.report ? new TextDecoder().decode(new Uint8Array(buffer, 4 + length + head.report.offset, head.report.size)) : "";
  $("volume").replaceChildren(...head.volumes.map((each, number) => option(number, each.name)));
  if (head.volumes.length) choose(0);
}

function say(text) { $("status").textContent = text; }

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function option(value, text) {
  const made = element("option", text);
  made.value = value;
  return made;
}

// A stack of slices is uint16 in the answer: value = slope * stored + intercept.

function stack(told) {
  const { buffer, start } = state.answer;
  const [slices, rows, columns] = told.shape;
  const from = start + told.offset;
  const size = slices * rows * columns;
  const aligned = from % 2 ? buffer.slice(from, from + 2 * size) : buffer;
  const stored = new Uint16Array(aligned, from % 2 ? 0 : from, size);
  return { ...told, slices, rows, columns, stored };
}

function at(image, slice, row, column) {
  return image.stored[(slice * image.rows + row) * image.columns + column] * image.slope + image.intercept;
}

function choose(number) {
  const told = state.answer.head.volumes[number];
  const source = stack(told.source), result = stack(told.result);
  const alike = told.comparable && source.rows === result.rows && source.columns === result.columns && source.slices === result.slices;
  const half = told.half_width ? stack(told.half_width) : null;
  state.volume = { ...told, source, result, alike, half };
  state.slice = Math.floor(result.slices / 2);
  $("slice").max = result.slices - 1;
  $("volume").value = number;
  $("nifti").hidden = !told.affine;
  $("promise").textContent = half ? `Uncertainty: ${state.promise}.` : "";
  const presets = told.result.unit === "HU" ? Object.keys(state.windows) : [];
  $("preset").replaceChildren(option("", "model's"), ...presets.map((name) => option(name, name)));
  preset("");
}

function preset(name) {
  const [low, high] = state.windows[name] || state.volume.window;
  $("preset").value = name;
  windowed((low + high) / 2, high - low);
}

function windowed(level, width) {
  width = Math.max(width, 1e-6);
  state.low = level - width / 2;
  state.high = level + width / 2;
  $("level").value = +level.toFixed(4);
  $("width").value = +width.toFixed(4);
  draw();
}

function scroll(by) {
  state.slice = Math.min(Math.max(state.slice + by, 0), state.volume.result.slices - 1);
  draw();
}

// Drawing: grey is floor(255 (value - low) / (high - low) + 1/2), cut to 0 and 255.

function grey(value) {
  const scaled = Math.floor((255 * (value - state.low)) / (state.high - state.low) + 0.5);
  return Math.min(Math.max(scaled, 0), 255);
}

function paint(canvas, rows, columns, colour) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  for (let row = 0, place = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, place += 4) {
      const [red, green, blue] = colour(row, column);
      pixels.data[place] = red;
      pixels.data[place + 1] = green;
      pixels.data[place + 2] = blue;
      pixels.data[place + 3] = 255;
    }
  }
  context.putImageData(pixels, 0, 0);
}

function draw() {
  const { source, result, alike, half, spacing } = state.volume;
  const depth = Math.round((state.slice * (source.slices - 1)) / Math.max(result.slices - 1, 1));
  const grey3 = (value) => { const level = grey(value); return [level, level, level]; };
  const ofSource = (row, column) => at(source, depth, row, column);
  const ofResult = (row, column) => at(result, state.slice, row, column);
  paint($("source"), source.rows, source.columns, (row, column) => grey3(ofSource(row, column)));
  // What the source has at a place of the result's grid.
  const beside = (row, column) =>
    ofSource(Math.floor((row * source.rows) / result.rows), Math.floor((column * source.columns) / result.columns));
  const edge = state.view === "swipe" ? Math.round(state.swipe * result.columns) : 0;
  const old = state.view === "blink" && state.shown === "source";
  paint($("result"), result.rows, result.columns, (row, column) => {
    if (column === edge && edge > 0) return [255, 207, 112];
    return grey3(old || column < edge ? beside(row, column) : ofResult(row, column));
  });
  const limit = (state.high - state.low) / 8;
  $("limit").textContent = $("widest").textContent = `${+limit.toFixed(2)} ${result.unit}`;
  if (half) {
    paint($("half_width"), half.rows, half.columns, (row, column) => {
      const fade = Math.round(255 * (1 - Math.min(at(half, state.slice, row, column) / limit, 1)));
      return [255, fade, 255];
    });
  }
  if (alike) {
    paint($("difference"), result.rows, result.columns, (row, column) => {
      const share = Math.min(Math.max((ofResult(row, column) - ofSource(row, column)) / limit, -1), 1);
      const fade = Math.round(255 * (1 - Math.abs(share)));
      return share > 0 ? [255, fade, fade] : [fade, fade, 255];
    });
  }
  for (const canvas of document.querySelectorAll("canvas")) canvas.style.aspectRatio = (canvas.width * spacing[1]) / (canvas.height * spacing[0]);
  const words = { side: "result", swipe: "source, and right of the line the result", blink: state.shown };
  $("seen").textContent = words[state.view];
  const all = state.view === "side";
  $("source").parentElement.hidden = !all;
  $("differing").hidden = !(all && alike);
  $("doubting").hidden = !(all && half);
  $("slice").value = state.slice;
  $("place").textContent = `${state.slice + 1} of ${result.slices}`;
}

function show(view) {
  state.view = view;
  for (const name of ["side", "swipe", "blink"]) $(name).setAttribute("aria-pressed", String(name === view));
  clearInterval(state.timer);
  state.shown = "result";
  if (view === "blink") {
    state.timer = setInterval(() => { state.shown = state.shown === "source" ? "result" : "source"; draw(); }, 600);
  }
  draw();
}

// What is typed, turned and dragged.

function keys(event) {
  if (!state.volume || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
  const level = (state.low + state.high) / 2, width = state.high - state.low;
  const acts = {
    ArrowUp: () => (event.shiftKey ? windowed(level + width / 50, width) : scroll(-1)),
    ArrowDown: () => (event.shiftKey ? windowed(level - width / 50, width) : scroll(1)),
    ArrowLeft: () => (event.shiftKey ? windowed(level, width / 1.05) : swiped(-0.02)),
    ArrowRight: () => (event.shiftKey ? windowed(level, width * 1.05) : swiped(0.02)),
    PageUp: () => scroll(-10), PageDown: () => scroll(10),
    Home: () => scroll(-Infinity), End: () => scroll(Infinity),
    b: () => show("blink"), s: () => show("swipe"), d: () => show("side"),
  };
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!acts[key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  acts[key]();
}

function swiped(by) {
  if (state.view !== "swipe") return;
  state.swipe = Math.min(Math.max(state.swipe + by, 0), 1);
  draw();
}

function place(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const row = Math.floor(((event.clientY - box.top) / box.height) * canvas.height);
  const column = Math.floor(((event.clientX - box.left) / box.width) * canvas.width);
  return [Math.min(Math.max(row, 0), canvas.height - 1), Math.min(Math.max(column, 0), canvas.width - 1)];
}

function dragging(canvas) {
  let last = null;
  canvas.addEventListener("pointerdown", (event) => { last = event; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { last = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (!state.volume) return;
    const [row, column] = place(canvas, event);
    const { source, result, half } = state.volume;
    const depth = Math.round((state.slice * (source.slices - 1)) / Math.max(result.slices - 1, 1));
    const share = [row / canvas.height, column / canvas.width];
    const value = (image, slice) => at(image, slice, Math.floor(share[0] * image.rows), Math.floor(share[1] * image.columns));
    $("value").textContent = `row ${row}, column ${column}: source ${+value(source, depth).toFixed(2)} ${source.unit}, result ${+value(result, state.slice).toFixed(2)} ${result.unit}` + (half ? ` ± ${+value(half, state.slice).toFixed(2)}` : "");
    if (!last) return;
    if (state.view === "swipe") {
      state.swipe = share[1];
      return draw();
    }
    const level = (state.low + state.high) / 2, width = state.high - state.low;
    windowed(level - ((event.clientY - last.clientY) * width) / 300, width * Math.exp((event.clientX - last.clientX) / 200));
    last = event;
  });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); scroll(Math.sign(event.deltaY)); }, { passive: false });
}

function save() {
  const { head, buffer, start } = state.answer;
  download([new Uint8Array(buffer, start + head.archive.offset, head.archive.size)], "translated.zip");
}

function download(parts, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type: "application/octet-stream" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// NIfTI-1: a header of 352 bytes, then what the stack holds; its first axis runs along a row.

function nifti() {
  const { result, affine } = state.volume;
  const header = new DataView(new ArrayBuffer(352));
  const along = [1, 0, 2, 3].map((axis) => affine.map((row) => row[axis])); // columns, rows, slices, corner
  header.setInt32(0, 348, true);
  [3, result.columns, result.rows, result.slices, 1, 1, 1, 1].forEach((size, i) => header.setInt16(40 + 2 * i, size, true));
  header.setInt16(70, 512, true); // uint16
  header.setInt16(72, 16, true); // bits
  [1, ...along.slice(0, 3).map((step) => Math.hypot(...step)), 1, 1, 1, 1].forEach((size, i) => header.setFloat32(76 + 4 * i, size, true));
  header.setFloat32(108, 352, true); // where the voxels begin
  header.setFloat32(112, result.slope, true);
  header.setFloat32(116, result.intercept, true);
  header.setUint8(123, 2); // millimetres
  header.setInt16(254, 1, true); // the affine is the scanner's
  affine.slice(0, 3).forEach((_, row) => along.forEach((step, i) => header.setFloat32(280 + 16 * row + 4 * i, step[row], true)));
  "n+1".split("").forEach((letter, i) => header.setUint8(344 + i, letter.charCodeAt(0)));
  download([header.buffer, result.stored], "translated.nii");
}

// Dropped folders are walked through.

async function dropped(entries) {
  const files = [];
  async function walk(entry, path) {
    if (entry.isFile) {
      const file = await new Promise((give, fail) => entry.file(give, fail));
      file.path = path + file.name;
      files.push(file);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const part = await new Promise((give, fail) => reader.readEntries(give, fail));
      if (!part.length) return;
      for (const each of part) await walk(each, `${path}${entry.name}/`);
    }
  }
  for (const entry of entries) await walk(entry, "");
  return files;
}

const drop = $("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") dropped([...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean)).then(translate);
  });
}
for (const name of ["files", "folder"]) $(name).addEventListener("change", (event) => translate([...event.target.files]));
$("volume").addEventListener("change", (event) => choose(Number(event.target.value)));
$("preset").addEventListener("change", (event) => preset(event.target.value));
for (const name of ["level", "width"]) $(name).addEventListener("change", () => windowed(Number($("level").value), Number($("width").value)));
$("slice").addEventListener("input", (event) => { state.slice = Number(event.target.value); draw(); });
for (const name of ["side", "swipe", "blink"]) $(name).addEventListener("click", () => show(name));
$("save").addEventListener("click", save);
$("nifti").addEventListener("click", nifti);
document.addEventListener("keydown", keys);
for (const canvas of document.querySelectorAll("canvas")) dragging(canvas);
fetch("about").then((answer) => answer.json()).then((about) => {
  $("model").textContent = document.title = about.name;
  $("about").textContent = about.summary;
  state.windows = about.windows;
  state.promise = about.uncertainty;
  $("doubt").hidden = !about.uncertainty;
  $("watching").hidden = !about.report;
});
