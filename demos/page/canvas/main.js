// The canvas as a component: scenes from the server, buttons, events to the server. Gradio looks
// for the names of the events in quotes: "open" and "act".

const status = element.querySelector(".ts-status");
const welcome = element.querySelector(".ts-welcome");
const busy = element.querySelector(".ts-busy");
const help = element.querySelector("dialog");
const readings = element.querySelector(".ts-readings");
const file = element.querySelector("input[type=file]");
const slow = { timer: 0 };

function say(words, isError) {
  status.textContent = words;
  status.classList.toggle("ts-error", Boolean(isError));
}

// Shown only after a quarter of a second, so that fast answers do not flicker.
function wait(words) {
  clearTimeout(slow.timer);
  stage.setAttribute("aria-busy", "true");
  if (!busy.hidden) busy.querySelector("span").textContent = words || "Working";
  slow.timer = setTimeout(() => {
    busy.querySelector("span").textContent = words || "Working";
    busy.hidden = false;
  }, 250);
}

function stopWaiting() {
  clearTimeout(slow.timer);
  busy.hidden = true;
  stage.removeAttribute("aria-busy");
}

function act(what, words) {
  wait(words);
  trigger("act", what);
}

async function openFile(chosen) {
  if (!chosen) return;
  if (chosen.size === 0) {
    say(`${chosen.name} is empty (0 bytes); choose a photo`, true);
    return;
  }
  wait(`Reading ${chosen.name}`);
  try {
    const { path } = await upload(chosen);
    trigger("open", { path, name: chosen.name });
  } catch (error) {
    stopWaiting();
    say(`${chosen.name} could not be uploaded: ${error.message || error}`, true);
  }
}

function receive() {
  const next = props.value;
  if (!next || typeof next !== "object") return;
  if (next.progress) {
    wait(next.progress);
    return;
  }
  const earlier = scene && scene.photo ? scene.photo.url : null;
  scene = next;
  Object.assign(stage, { scene, place }); // read by tests and benchmarks
  stopWaiting();
  say(scene.message, scene.error);
  welcome.hidden = Boolean(scene.photo);
  stage.classList.toggle("ts-empty", !scene.photo);
  const enabled = { photo: true, undo: scene.undo, redo: scene.redo, objects: scene.objects.length };
  for (const button of element.querySelectorAll("[data-needs]")) {
    button.disabled = !scene.photo || !enabled[button.dataset.needs];
  }
  showReadings();
  if (scene.photo && scene.photo.url !== earlier) {
    cursor = null;
    layers.clear();
    picture.onload = fitPhoto;
    picture.src = scene.photo.url;
    stage.style.setProperty("--ts-shape", `${scene.photo.width} / ${scene.photo.height}`);
    const photo = `Photo ${scene.photo.name}, ${scene.photo.width} by ${scene.photo.height} pixels.`;
    stage.setAttribute("aria-label", `${photo} Arrow keys move a crosshair, Enter clicks, the question mark lists all keys.`);
  } else if (scene.photo) {
    forgetLayers(scene.objects, scene.photo);
  }
  draw();
}

function showReadings() {
  const active = activeObject();
  readings.hidden = !active || active.readings < 2;
  if (readings.hidden) return;
  [...readings.querySelectorAll("button")].forEach((button, index) => {
    button.hidden = index >= active.readings;
    button.setAttribute("aria-pressed", String(index === active.reading));
  });
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { toolButton, act: action, zoom, example, reading, open: opens, close } = button.dataset;
  if (toolButton) chooseTool(toolButton);
  if (action) act({ do: action });
  if (zoom === "fit") fitPhoto();
  else if (zoom) zoomAt(Number(zoom), stage.clientWidth / 2, stage.clientHeight / 2);
  if (example) {
    wait("Reading the photo");
    trigger("open", { example });
  }
  if (reading) act({ do: "reading", index: Number(reading) });
  if (opens === "file") file.click();
  if (opens === "welcome") welcome.hidden = Boolean(scene.photo) && !welcome.hidden;
  if (opens === "help") help.showModal();
  if (close === "help") help.close();
  if (close === "welcome") welcome.hidden = true;
});

// As in every radio group, Tab reaches it once and the arrow keys move between the tools.
element.querySelector("[role=radiogroup]").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const all = [...element.querySelectorAll("[data-tool-button]")];
  const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
  chooseTool(next.dataset.toolButton);
  next.focus();
  event.preventDefault();
});

file.addEventListener("change", () => {
  openFile(file.files[0]);
  file.value = ""; // else choosing the same file again is no change
});

for (const [name, drags] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
  element.addEventListener(name, (event) => {
    event.preventDefault();
    stage.classList.toggle("ts-drop", drags);
  });
}
element.addEventListener("drop", (event) => openFile(event.dataTransfer.files[0]));
element.addEventListener("paste", (event) => openFile(event.clipboardData.files[0]));

document.addEventListener("textsam-look", (event) => {
  Object.assign(look, event.detail);
  draw();
});
document.addEventListener("textsam-hover", (event) => {
  hovered = event.detail;
  draw();
});
document.addEventListener("textsam-wait", (event) => wait(event.detail));

new ResizeObserver(fitPhoto).observe(stage);
watch("value", receive);
chooseTool("add");
receive();
