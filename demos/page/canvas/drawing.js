// Drawing the scene: photo, tints, outlines, the prompts of the active object, labels.

const look = { opacity: 0.45, outline: true, labels: true };
const stage = element.querySelector(".ts-stage");
const canvas = stage.querySelector("canvas");
const pen = canvas.getContext("2d");
const picture = new Image();

// Where the photo is on the stage: screen pixels = photo pixels * scale + (x, y).
const place = { scale: 1, x: 0, y: 0, fit: 1 };
let scene = null;
let draft = null; // the box that is being dragged
let cursor = null; // the crosshair that the arrow keys move
let hovered = null; // number of the object under the mouse in the list

function toPhoto(x, y) {
  return [(x - place.x) / place.scale, (y - place.y) / place.scale];
}

function fitPhoto() {
  if (!scene || !scene.photo) return;
  const { width, height } = scene.photo;
  place.fit = Math.min(stage.clientWidth / width, stage.clientHeight / height);
  place.scale = place.fit;
  place.x = (stage.clientWidth - width * place.scale) / 2;
  place.y = (stage.clientHeight - height * place.scale) / 2;
  draw();
}

// Zoom around a place that stays where it is; never smaller than the whole photo.
function zoomAt(factor, x, y) {
  const scale = Math.min(Math.max(place.scale * factor, place.fit), place.fit * 24);
  const [px, py] = toPhoto(x, y);
  place.scale = scale;
  place.x = x - px * scale;
  place.y = y - py * scale;
  keepInside();
  draw();
}

function panBy(dx, dy) {
  place.x += dx;
  place.y += dy;
  keepInside();
  draw();
}

function keepInside() {
  const sides = [["x", stage.clientWidth, scene.photo.width], ["y", stage.clientHeight, scene.photo.height]];
  for (const [axis, room, size] of sides) {
    const length = size * place.scale;
    const free = room - length;
    place[axis] = free > 0 ? free / 2 : Math.min(0, Math.max(free, place[axis]));
  }
  stage.classList.toggle("ts-zoomed", place.scale > place.fit * 1.01);
}

let scheduled = false;
function draw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    drawNow();
  });
}

function drawNow() {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [stage.clientWidth, stage.clientHeight];
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, w, h);
  if (!scene || !scene.photo || !picture.complete || !picture.naturalWidth) return;
  const { photo } = scene;
  pen.save();
  pen.setTransform(place.scale * ratio, 0, 0, place.scale * ratio, place.x * ratio, place.y * ratio);
  pen.imageSmoothingEnabled = place.scale < 4;
  pen.drawImage(picture, 0, 0, photo.width, photo.height);
  const visible = scene.objects.filter((item) => item.shown && item.counts);
  visible.sort((a, b) => b.share - a.share); // small masks on top
  const shown = visible.map((item) => [item, layerOf(item, photo)]);
  for (const [item, layer] of shown) {
    pen.globalAlpha = Math.min(1, look.opacity * (isLit(item) ? 1.35 : 1));
    pen.drawImage(layer.tint, item.box[0], item.box[1]);
  }
  pen.globalAlpha = 1;
  pen.lineCap = "round";
  for (const [item, layer] of shown) {
    const lit = isLit(item);
    if (!look.outline && !lit) continue;
    const fine = item.origin === "everything" && !lit; // a hundred white outlines would hide the photo
    const line = (lit ? 3.2 : fine ? 1.4 : 2) / place.scale;
    if (!fine) {
      pen.strokeStyle = "rgba(255, 255, 255, 0.95)";
      pen.lineWidth = line + (lit ? 3 : 1.8) / place.scale;
      pen.stroke(layer.line);
    }
    pen.strokeStyle = `rgb(${item.color})`;
    pen.lineWidth = line;
    pen.stroke(layer.line);
  }
  pen.restore();
  const active = activeObject();
  if (active) drawPrompts(active);
  if (look.labels) drawLabels(visible);
  if (draft) drawBox(draft);
  if (cursor) drawCursor(cursor);
  canvas.dataset.drawn = scene.serial; // tests and benchmarks wait for this
}

function activeObject() {
  return scene.objects.find((item) => item.number === scene.active);
}

function isLit(item) {
  return item.number === scene.active || item.number === hovered;
}

function onScreen(x, y) {
  return [x * place.scale + place.x, y * place.scale + place.y];
}

// Dark on a white rim, so that it is visible on every photo.
function strokeOnRim(path) {
  for (const [color, width] of [["#fff", 4], ["#111", 2]]) {
    pen.strokeStyle = color;
    pen.lineWidth = width;
    pen.stroke(path);
  }
}

function drawBox([x0, y0, x1, y1]) {
  const [left, top] = onScreen(x0, y0);
  const [right, bottom] = onScreen(x1, y1);
  pen.setLineDash([6, 4]);
  strokeOnRim(new Path2D(`M${left} ${top}H${right}V${bottom}H${left}Z`));
  pen.setLineDash([]);
}

function drawPrompts(item) {
  if (item.prompt_box) drawBox(item.prompt_box);
  pen.lineWidth = 2;
  pen.strokeStyle = "#fff";
  for (const [x, y, foreground] of item.points) {
    const [left, top] = onScreen(x, y);
    const disk = new Path2D();
    disk.arc(left, top, 8, 0, 2 * Math.PI);
    pen.fillStyle = foreground ? "#0b57d0" : "#b3261e";
    pen.fill(disk);
    pen.stroke(disk);
    // A plus or a minus, for people who cannot tell the colours apart.
    pen.stroke(new Path2D(`M${left - 4} ${top}h8${foreground ? `M${left} ${top - 4}v8` : ""}`));
  }
}

function drawCursor([x, y]) {
  const [left, top] = onScreen(x, y);
  strokeOnRim(new Path2D(`M${left - 14} ${top}h28M${left} ${top - 14}v28`));
}

// A label goes to the first of four places where it hides no other label; else it is left out.
function drawLabels(visible) {
  const size = stage.clientWidth < 480 ? 11 : 13;
  const high = size + 9;
  pen.font = `600 ${size}px ${getComputedStyle(stage).getPropertyValue("--font") || "sans-serif"}`;
  pen.textBaseline = "middle";
  const taken = [];
  const first = [...visible].sort(
    (a, b) => (b.number === scene.active) - (a.number === scene.active) || b.share - a.share
  );
  for (const item of first) {
    const lit = isLit(item);
    if (item.origin === "everything" && !lit) continue; // a hundred labels are unreadable
    const score = item.score === null ? "" : `  ${item.score.toFixed(2)}`;
    const name = item.name.length > 28 ? `${item.name.slice(0, 27)}…` : item.name;
    const words = name + score;
    const w = pen.measureText(words).width + 28;
    const [left, top] = onScreen(item.box[0], item.box[1]);
    const [right, bottom] = onScreen(item.box[2], item.box[3]);
    const x = Math.min(Math.max((left + right - w) / 2, 2), stage.clientWidth - w - 2);
    const spots = [top - high - 3, top + 4, bottom + 3, bottom - high - 3].map((y) =>
      Math.min(Math.max(y, 2), stage.clientHeight - high - 2)
    );
    const y = spots.find((spot) => taken.every(([a, b, c, d]) => x > c || x + w < a || spot > d || spot + high < b));
    if (y === undefined) continue;
    taken.push([x, y, x + w, y + high]);
    pen.beginPath();
    pen.roundRect(x, y, w, high, high / 2);
    pen.fillStyle = "rgba(20, 20, 24, 0.86)";
    pen.fill();
    if (lit) {
      pen.strokeStyle = "#fff";
      pen.lineWidth = 1.5;
      pen.stroke();
    }
    pen.beginPath();
    pen.arc(x + 11, y + high / 2, 5, 0, 2 * Math.PI);
    pen.fillStyle = `rgb(${item.color})`;
    pen.fill();
    pen.fillStyle = "#fff";
    pen.fillText(words, x + 20, y + high / 2 + 0.5);
  }
}
