// Mouse, pen and touch: click, drag a box, pan, zoom by pinch and wheel.

const pointers = new Map();
let tool = "add"; // add, remove, box, move
let press = null; // the pointer that is down: where it started, and whether it clicks, boxes or pans
let pinch = null;

function placeOf(event) {
  const frame = stage.getBoundingClientRect();
  return [event.clientX - frame.left, event.clientY - frame.top];
}

function isOnPhoto([x, y]) {
  return x >= 0 && y >= 0 && x < scene.photo.width && y < scene.photo.height;
}

function twoFingers() {
  const [[ax, ay], [bx, by]] = [...pointers.values()];
  return { gap: Math.hypot(ax - bx, ay - by), middle: [(ax + bx) / 2, (ay + by) / 2] };
}

stage.addEventListener("pointerdown", (event) => {
  if (!scene || !scene.photo || event.target.closest("button, input, .ts-welcome")) return;
  const at = placeOf(event);
  pointers.set(event.pointerId, at);
  cursor = null;
  if (pointers.size === 2) {
    pinch = twoFingers();
    press = null;
    draft = null;
    return;
  }
  const pans = tool === "move" || event.button === 1 || spaceDown;
  press = { at, start: toPhoto(...at), button: event.button, kind: pans ? "pan" : "click", type: event.pointerType };
  try {
    stage.setPointerCapture(event.pointerId);
  } catch {
    // a synthetic pointer of a test cannot be captured
  }
  if (event.pointerType === "mouse") event.preventDefault(); // else the page selects text
  stage.focus({ preventScroll: true });
});

stage.addEventListener("pointermove", (event) => {
  if (!pointers.has(event.pointerId)) return;
  const before = pointers.get(event.pointerId);
  const at = placeOf(event);
  pointers.set(event.pointerId, at);
  if (pinch && pointers.size === 2) {
    const { gap, middle } = twoFingers();
    panBy(middle[0] - pinch.middle[0], middle[1] - pinch.middle[1]);
    if (pinch.gap > 0) zoomAt(gap / pinch.gap, ...middle);
    pinch = { gap, middle };
    return;
  }
  if (!press) return;
  const moved = Math.hypot(at[0] - press.at[0], at[1] - press.at[1]);
  if (press.kind === "click" && moved > (press.type === "touch" ? 12 : 5)) {
    // A moving finger scrolls the page or pans the photo, unless the box tool is chosen.
    const boxes = tool === "box" || (press.type !== "touch" && press.button === 0 && tool === "add");
    press.kind = boxes ? "box" : "pan";
  }
  if (press.kind === "box") {
    draft = [...press.start, ...toPhoto(...at)];
    draw();
  } else if (press.kind === "pan") {
    panBy(at[0] - before[0], at[1] - before[1]);
  }
});

function endPress(event, cancelled) {
  if (!pointers.delete(event.pointerId)) return;
  if (pinch) {
    if (!pointers.size) pinch = null;
    return;
  }
  const done = press;
  press = null;
  if (!done || cancelled) {
    draft = null;
    draw();
    return;
  }
  if (done.kind === "box") {
    const [x0, y0, x1, y1] = draft;
    draft = null;
    draw();
    act({ do: "box", x0, y0, x1, y1 }, "Segmenting the box");
  } else if (done.kind === "click" && tool === "box") {
    say("Drag a box around an object", true);
  } else if (done.kind === "click" && isOnPhoto(done.start)) {
    clickAt(done.start, done.button === 2 || tool === "remove" || event.altKey);
  }
}

function clickAt([x, y], removes) {
  act({ do: "click", x, y, foreground: !removes }, "Segmenting");
}

stage.addEventListener("pointerup", (event) => endPress(event, false));
stage.addEventListener("pointercancel", (event) => endPress(event, true));
stage.addEventListener("contextmenu", (event) => {
  if (scene && scene.photo) event.preventDefault();
});

// The wheel scrolls the page, unless the photo has the focus or Ctrl is held.
stage.addEventListener(
  "wheel",
  (event) => {
    if (!scene || !scene.photo) return;
    if (!event.ctrlKey && document.activeElement !== stage) return;
    event.preventDefault();
    zoomAt(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), ...placeOf(event));
  },
  { passive: false }
);

function chooseTool(name) {
  tool = name;
  stage.dataset.tool = name;
  for (const button of element.querySelectorAll("[data-tool-button]")) {
    button.setAttribute("aria-checked", String(button.dataset.toolButton === name));
    button.tabIndex = button.dataset.toolButton === name ? 0 : -1;
  }
}
