// The page: buttons, phrases, the list of masks, files in and out.

import { splitPhrases } from "./model/tokenizer.js";
import { Client } from "./page/client.js";
import { cssColour, paintOverlay } from "./page/drawing.js";
import { Stage } from "./page/stage.js";

const EXAMPLES = [
  { file: "bus.jpg", alt: "A street with a bus", phrases: ["wheel", "yellow bus", "person"] },
  { file: "dog.jpg", alt: "A dog", phrases: ["dog", "nose", "cat"] },
  { file: "horses.jpg", alt: "Horses", phrases: ["horse", "person", "tree"] },
];
const $ = (id) => document.getElementById(id);
const ui = Object.fromEntries([...document.querySelectorAll("[id]")].map((each) => [each.id, each]));

let isReady = false;
let hasText = false;
let textReady = false;
let board = { objects: [], active: null, phrases: [], points: [] };
let fileName = "photo";
let busy = 0;

const client = new Client(onMessage);
const stage = new Stage(ui.stage, ui.canvas, ui.preview, {
  hover: (x, y, foreground) => (busy && !isRefining() ? null : client.ask("hover", { x, y, foreground }).catch(() => null)),
  click: (x, y, foreground) => run("Looking closer", "click", { x, y, foreground }),
  box: (box) => run("Looking closer", "box", { box }),
  tell,
});

const isRefining = () => board.objects.some(({ refining }) => refining);

function tell(text, isError = false) {
  ui.status.textContent = text;
  ui.status.classList.toggle("error", isError);
}

/** Asks the worker; says what is being done, and what went wrong. */
async function run(text, kind, rest) {
  busy++;
  showBusy(text);
  try {
    const result = await client.ask(kind, rest);
    if (!result.cancelled) tell(kind === "open" ? "" : ui.status.classList.contains("error") ? "" : ui.status.textContent);
    return result;
  } catch (error) {
    tell(error.message, true);
    return null;
  } finally {
    busy--;
    if (!busy) showBusy("");
    ui.stage.dataset.state = busy ? "busy" : stage.photo ? "ready" : "empty";
    refresh();
  }
}

function showBusy(text) {
  ui.busy.hidden = !text;
  ui["busy-text"].textContent = text;
  if (text) ui.stage.dataset.state = "busy";
}

function onMessage(message) {
  if (message.kind === "loading") {
    const share = message.loaded / message.total;
    ui.progress.value = share;
    const mb = (bytes) => (bytes / 1e6).toFixed(0);
    ui["loading-text"].textContent = `Loading the model: ${mb(message.loaded)} of ${mb(message.total)} MB, kept for the next visit`;
    if (!isReady) ui.engine.textContent = "loading";
  } else if (message.kind === "ready") {
    isReady = true;
    hasText = message.hasText;
    const how = message.provider === "webgpu" ? "WebGPU" : "WebAssembly";
    ui.engine.textContent = `${message.name} · ${how} · ${message.threads === 1 ? "1 thread" : `${message.threads} threads`}`;
    ui.engine.title = message.threads === 1 && !self.crossOriginIsolated
      ? "The server does not send the headers that threads need; reload the page to get them from its service worker" : "";
    ui.stage.dataset.state = "empty";
    performance.mark("ready");
  } else if (message.kind === "text-ready") {
    textReady = true;
    ui.loading.hidden = true;
    ui.stage.dataset.text = "ready";
  } else if (message.kind === "progress") {
    showBusy(`Everything: ${Math.round(100 * message.share)} %`);
  } else if (message.kind === "board") {
    board = message;
    stage.setBoard(board);
    showList();
  }
  refresh();
}

function refresh() {
  const hasPhoto = Boolean(stage.photo);
  ui.choose.disabled = !isReady;
  for (const each of ui.examples.children) each.disabled = !isReady;
  ui.phrase.disabled = ui.find.disabled = !(hasPhoto && textReady);
  ui.phrase.placeholder = isReady && !hasText ? "this model takes no phrases" : "dog, red car, wheel";
  ui.everything.disabled = !hasPhoto;
  ui.fresh.disabled = !hasPhoto || board.active === null;
  ui.undo.disabled = !board.canUndo;
  ui.redo.disabled = !board.canRedo;
  ui.clear.disabled = !board.objects.length;
  ui["save-png"].disabled = ui["save-json"].disabled = !board.objects.length;
}

// ---- photos

async function openPhoto(blob, name, phrases = []) {
  if (!isReady) return;
  let photo;
  try {
    photo = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    tell(`${name} is not a picture that this browser reads. Choose a JPEG, PNG or WebP file.`, true);
    return;
  }
  fileName = name.replace(/\.[^.]*$/, "") || "photo";
  ui.stage.classList.remove("empty");
  ui.welcome.hidden = true;
  ui.bar.hidden = false;
  ui.stage.tabIndex = 0;
  ui.stage.setAttribute("role", "application");
  ui.stage.setAttribute("aria-label", `${name}: arrow keys move a cross, Enter clicks`);
  board = { objects: [], active: null, phrases: [], points: [], masks: [] };
  stage.open(photo);
  stage.setBoard(board);
  showList();
  showSuggestions(phrases);
  const result = await run("Encoding the photo, once", "open", { blob });
  if (!result) return;
  performance.mark("encoded", { detail: result.encodeMs });
  ui.stage.dataset.encode = result.encodeMs.toFixed(0);
  tell(`Ready: ${result.width} × ${result.height} pixels, encoded in ${(result.encodeMs / 1000).toFixed(1)} s. Point at something.`);
}

function showWelcome() {
  ui.file.click();
}

for (const { file, alt, phrases } of EXAMPLES) {
  const button = document.createElement("button");
  button.type = "button";
  button.disabled = true;
  button.dataset.example = file;
  const image = document.createElement("img");
  image.src = `examples/${file}`;
  image.alt = alt;
  button.append(image);
  button.addEventListener("click", async () => {
    const response = await fetch(`examples/${file}`);
    openPhoto(await response.blob(), file, phrases);
  });
  ui.examples.append(button);
}

ui.choose.addEventListener("click", showWelcome);
ui.another.addEventListener("click", showWelcome);
ui.file.addEventListener("change", () => {
  const [file] = ui.file.files;
  if (file) openPhoto(file, file.name);
  ui.file.value = "";
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    ui.stage.classList.toggle("drop", kind === "dragover");
    const [file] = kind === "drop" ? event.dataTransfer.files : [];
    if (file) openPhoto(file, file.name);
  });
}
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (file) openPhoto(file, file.name || "pasted.png");
});

// ---- phrases

function showSuggestions(phrases) {
  ui.suggestions.replaceChildren(
    ...phrases.map((phrase) => {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.textContent = phrase;
      chip.addEventListener("click", () => {
        if (!textReady) return tell("The text model is still loading.");
        ui.phrase.value = phrase;
        ui.form.requestSubmit();
      });
      return chip;
    }),
  );
}

ui.form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const phrases = splitPhrases(ui.phrase.value);
  if (!phrases.length) return tell("Type a phrase first, for example: wheel", true);
  if (!stage.photo || !textReady) return;
  const result = await run(phrases.length > 1 ? "Finding phrases" : `Finding ${phrases[0]}`, "text", { phrases });
  if (!result?.phrases) return;
  const said = result.phrases.map(({ phrase, count }) => (count ? `${phrase}: ${count}` : `${phrase}: not found`));
  tell(said.join(" · "));
});

function showAnswers() {
  ui.answers.replaceChildren(
    ...board.phrases.map(({ phrase, presence, reason, count }) => {
      const row = document.createElement("li");
      row.classList.toggle("absent", !count);
      const name = document.createElement("b");
      name.textContent = phrase;
      const text = document.createElement("span");
      const sure = `${Math.round(100 * presence)} %`;
      text.textContent = count ? `${count} found · ${sure}` : `${reason} · ${sure}`;
      row.append(name, text);
      return row;
    }),
  );
}

// ---- the list of masks

function iconButton(icon, label) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.title = label;
  button.innerHTML = icon;
  return button;
}

function showRow(row, number) {
  const { id, label, score, iou } = row;
  const item = document.createElement("li");
  const name = label || `object ${number}`;
  item.classList.toggle("active", id === board.active);
  item.dataset.id = id;
  const swatch = iconButton("", `Choose ${name}: clicks correct it`);
  swatch.className = "swatch";
  swatch.setAttribute("aria-pressed", String(id === board.active));
  swatch.style.setProperty("--mask", cssColour(row.colour));
  swatch.addEventListener("click", () => client.ask("select", { id: id === board.active ? null : id }));
  const input = document.createElement("input");
  input.type = "text";
  input.value = label;
  input.placeholder = name;
  input.setAttribute("aria-label", `Name of ${name}`);
  input.addEventListener("change", () => client.ask("rename", { id, label: input.value.trim() }));
  const figure = document.createElement("small");
  figure.textContent = score === null ? `IoU ${iou.toFixed(2)}` : `${Math.round(100 * score)} %`;
  figure.title = score === null ? "Quality that the model predicts" : "Probability that the phrase describes it";
  const remove = iconButton('<svg aria-hidden="true"><use href="#i-x"/></svg>', `Delete ${name}`);
  remove.addEventListener("click", () => run("", "remove", { id }));
  item.append(swatch, input, figure, remove);
  return item;
}

function showList() {
  const focused = document.activeElement?.closest?.("#list li")?.dataset.id;
  ui.list.replaceChildren(...board.objects.map((row, index) => showRow(row, index + 1)));
  if (focused) ui.list.querySelector(`li[data-id="${focused}"] .swatch`)?.focus();
  ui.nothing.hidden = board.objects.length > 0;
  ui.count.textContent = board.objects.length || "";
  showAnswers();
  showReadings();
}

/** A lone click may mean a part or the whole: its readings can be chosen. */
function showReadings() {
  const row = board.objects.find(({ id }) => id === board.active);
  ui.readings.hidden = !row || row.readings < 2;
  if (ui.readings.hidden) return;
  const text = document.createElement("span");
  text.textContent = "Meant:";
  const buttons = Array.from({ length: row.readings }, (_, reading) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = reading + 1;
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", String(reading === row.reading));
    button.setAttribute("aria-label", `Reading ${reading + 1} of ${row.readings}`);
    button.addEventListener("click", () => client.ask("reading", { id: row.id, reading }));
    return button;
  });
  ui.readings.replaceChildren(text, ...buttons);
}

// ---- tools and keys

function setTool(tool) {
  for (const button of document.querySelectorAll("[data-tool][role=radio]")) {
    const isChosen = button.dataset.tool === tool;
    button.setAttribute("aria-checked", String(isChosen));
    button.tabIndex = isChosen ? 0 : -1;
  }
  stage.setTool(tool);
}

const tools = [...document.querySelectorAll("[data-tool][role=radio]")];
tools.forEach((button, index) => {
  button.addEventListener("click", () => setTool(button.dataset.tool));
  button.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = tools[(index + step + tools.length) % tools.length];
    next.focus();
    setTool(next.dataset.tool);
  });
});
const fresh = () => client.ask("select", { id: null }).then(() => tell("The next click starts a new object."));
ui.undo.addEventListener("click", () => run("", "undo"));
ui.redo.addEventListener("click", () => run("", "redo"));
ui.clear.addEventListener("click", () => run("", "clear"));
ui.fresh.addEventListener("click", fresh);
ui.everything.addEventListener("click", async () => {
  const result = await run("Everything", "everything", { perSide: 10 });
  if (result?.count !== undefined) tell(`Everything: ${result.count} masks`);
});
ui.help.addEventListener("click", () => ui.keys.showModal());

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, dialog *") || ui.keys.open) return;
  const key = event.key.toLowerCase();
  const control = event.ctrlKey || event.metaKey;
  if (control && key === "z") {
    event.preventDefault();
    return void (event.shiftKey ? ui.redo : ui.undo).click();
  }
  if (control && key === "y") {
    event.preventDefault();
    return void ui.redo.click();
  }
  if (control || event.altKey) return;
  if (key === "/" && !ui.phrase.disabled) {
    event.preventDefault();
    ui.phrase.focus();
  }
  if (!stage.photo) return;
  if (key === "p") setTool("add");
  if (key === "m") setTool("cut");
  if (key === "b") setTool("box");
  if ((key === "n" || key === "escape") && board.active !== null) fresh();
  if (key === "delete" && board.active !== null) run("", "remove", { id: board.active });
  if (key === "?") ui.keys.showModal();
});

// ---- saving

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

ui["save-png"].addEventListener("click", async () => {
  const found = await run("Drawing", "export", { withMasks: true });
  if (!found) return;
  const canvas = paintOverlay(stage.photo, found.objects, found);
  canvas.toBlob((blob) => save(blob, `${fileName}_masks.png`), "image/png");
});

ui["save-json"].addEventListener("click", async () => {
  const found = await run("Writing", "export", {});
  if (!found) return;
  save(new Blob([JSON.stringify(toCoco(found), null, 1)], { type: "application/json" }), `${fileName}_coco.json`);
});

/** COCO's instance annotations, masks as compressed run lengths. */
function toCoco({ width, height, objects }) {
  const names = [...new Set(objects.map(({ label }) => label || "object"))];
  return {
    images: [{ id: 1, file_name: fileName, width, height }],
    categories: names.map((name, index) => ({ id: index + 1, name })),
    annotations: objects.map(({ label, score, iou, stability, box: [x0, y0, x1, y1], area, counts }, index) => ({
      id: index + 1,
      image_id: 1,
      category_id: names.indexOf(label || "object") + 1,
      segmentation: { size: [height, width], counts },
      area,
      bbox: [x0, y0, x1 - x0, y1 - y0],
      iscrowd: 0,
      ...(score === null ? {} : { score }),
      predicted_iou: iou,
      stability_score: stability,
    })),
  };
}

// ---- start

const asked = new URLSearchParams(location.search);
setTool("add");
refresh();

/** Keeps the page for the next visit, without a network, and adds the headers of threads. */
async function startOffline() {
  if (!("serviceWorker" in navigator) || !window.isSecureContext || asked.get("offline") === "0") return;
  try {
    await navigator.serviceWorker.register("offline.js");
    // What loads from here on goes through it; a browser that cannot keep files need not be waited for.
    const started = navigator.serviceWorker.ready;
    await Promise.race([started, new Promise((resolve) => setTimeout(resolve, 2000))]);
  } catch (error) {
    console.info("This page is not kept for offline use:", error.message);
  }
}

async function start() {
  await startOffline();
  client.start();
  await client.ask("load", {
    folder: new URL(asked.get("model") ?? "model/", document.baseURI).href,
    gpu: asked.get("gpu") !== "0",
    threads: asked.has("threads") ? Number(asked.get("threads")) : undefined,
  });
  const worker = await navigator.serviceWorker?.getRegistration();
  if (!worker?.active) return;
  const own = performance.getEntriesByType("resource").map(({ name }) => name);
  const urls = [document.baseURI, ...own].filter((url) => url.startsWith(location.origin));
  const channel = new MessageChannel();
  channel.port1.onmessage = () => (document.documentElement.dataset.offline = "ready");
  worker.active.postMessage({ urls }, [channel.port2]);
}

start().catch((error) => {
  ui["loading-text"].textContent = error.message;
  ui.stage.dataset.state = "failed";
  ui.engine.textContent = "no model";
  tell(`The model could not be loaded: ${error.message}`, true);
});
