// The photo with its masks: drawing, the pointer, and the cross that keys move.

import { colourOf, maskPixels, paintMask } from "./drawing.js";

const DRAG = 6; // pixels on the screen from which a press is a box
const PREVIEW = [0x2f, 0x7d, 0xff];
const CUT = [0xb3, 0x26, 0x1e];

export class Stage {
  #photo = null;
  #masks = new Map(); // id -> painted canvas
  #board = { objects: [], points: [], active: null };
  #base = document.createElement("canvas"); // photo and masks at the canvas's size
  #drag = null;
  #cross = null;
  #corner = null; // first corner of a box by keys
  #asking = false;
  #pointer = null;
  #isTold = false;

  /** `on`: hover(x, y, foreground) -> mask, click, box, key; places in pixels of the photo. */
  constructor(stage, canvas, preview, on) {
    // The preview is a canvas above the photo: nothing below it is drawn again while it changes.
    Object.assign(this, { stage, canvas, preview, on, tool: "add" });
    canvas.addEventListener("pointermove", (event) => this.#moved(event));
    canvas.addEventListener("pointerdown", (event) => this.#pressed(event));
    canvas.addEventListener("pointerup", (event) => this.#released(event));
    canvas.addEventListener("pointerleave", () => this.#left());
    canvas.addEventListener("pointercancel", () => this.#left());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("keydown", (event) => this.#key(event));
    stage.addEventListener("blur", () => this.#setCross(null));
    new ResizeObserver(() => this.#fit()).observe(stage.parentElement);
    window.addEventListener("resize", () => this.#fit());
  }

  /** Shows a photo, an ImageBitmap; null for none. */
  open(photo) {
    this.#photo = photo;
    this.#masks.clear();
    this.#drag = this.#cross = this.#corner = null;
    this.#showPreview(null);
    this.canvas.hidden = !photo;
    this.#fit();
  }

  get photo() {
    return this.#photo;
  }

  setBoard(board) {
    this.#board = board;
    for (const mask of board.masks) {
      const row = board.objects.find(({ id }) => id === mask.id);
      this.#masks.set(mask.id, paintMask(mask, colourOf(row.colour)));
    }
    this.#showPreview(null);
    this.#drawBase();
    this.draw();
  }

  /** Shows the mask under the pointer; null for none. */
  #showPreview(mask, foreground = true) {
    this.preview.hidden = !mask;
    if (!mask) return;
    const colour = foreground ? PREVIEW : CUT;
    const picture = maskPixels(mask, colour, { alpha: 0.34, line: 1, halo: 1 });
    if (this.preview.width !== mask.width) this.preview.width = mask.width;
    if (this.preview.height !== mask.height) this.preview.height = mask.height;
    this.preview.getContext("2d").putImageData(picture, 0, 0);
  }

  setTool(tool) {
    this.tool = tool;
    this.stage.dataset.tool = tool;
    this.#corner = null;
    this.#showPreview(null);
    this.draw();
  }

  /** The canvas is as large as the stage's width and the window's height allow. */
  #fit() {
    if (!this.#photo) return;
    const wide = this.stage.clientWidth;
    const high = Math.max(260, Math.min(window.innerHeight * (window.innerWidth < 900 ? 0.58 : 0.76), 900));
    const scale = Math.min(wide / this.#photo.width, high / this.#photo.height);
    const [w, h] = [this.#photo.width * scale, this.#photo.height * scale];
    const dense = Math.min(2, window.devicePixelRatio || 1);
    for (const { style } of [this.canvas, this.preview]) {
      style.width = `${w}px`;
      style.height = `${h}px`;
    }
    this.canvas.width = Math.round(w * dense);
    this.canvas.height = Math.round(h * dense);
    this.#drawBase();
    this.draw();
  }

  /** Screen pixels of the canvas for each pixel of the photo. */
  get #scale() {
    return this.canvas.width / this.#photo.width;
  }

  /** What stays as it is while the pointer moves. */
  #drawBase() {
    if (!this.#photo) return;
    const { width, height } = this.canvas;
    Object.assign(this.#base, { width, height });
    const pen = this.#base.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.#photo, 0, 0, width, height);
    const { objects, active } = this.#board;
    for (const { id } of objects) {
      pen.globalAlpha = active === null || active === id ? 1 : 0.6;
      const mask = this.#masks.get(id);
      if (mask) pen.drawImage(mask, 0, 0, width, height);
    }
  }

  draw() {
    if (!this.#photo) return;
    const pen = this.canvas.getContext("2d");
    const { points, box } = this.#board;
    pen.drawImage(this.#base, 0, 0);
    const scale = this.#scale;
    const dense = this.canvas.width / parseFloat(this.canvas.style.width);
    if (box) this.#frame(pen, box.map((side) => side * scale), dense, []);
    if (this.#drag?.box) this.#frame(pen, this.#drag.box.map((side) => side * scale), dense, [6, 4]);
    for (const point of points) this.#dot(pen, point.x * scale, point.y * scale, point.label, dense);
    if (this.#corner && this.#cross) {
      const { x, y } = this.#cross;
      this.#frame(pen, [this.#corner.x, this.#corner.y, x, y].map((side) => side * scale), dense, [6, 4]);
    }
    if (this.#cross) this.#crosshair(pen, this.#cross.x * scale, this.#cross.y * scale, dense);
  }

  #frame(pen, [x0, y0, x1, y1], dense, dash) {
    for (const [colour, line] of [["rgba(0,0,0,.6)", 4], ["#fff", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line * dense;
      pen.setLineDash(dash.map((each) => each * dense));
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    pen.setLineDash([]);
  }

  #dot(pen, x, y, label, dense) {
    pen.beginPath();
    pen.arc(x, y, 7 * dense, 0, 7);
    pen.fillStyle = label ? "#0b57d0" : "#b3261e";
    pen.fill();
    pen.lineWidth = 2 * dense;
    pen.strokeStyle = "#fff";
    pen.stroke();
    pen.beginPath(); // a plus or a minus, so that colour is not all that tells
    pen.moveTo(x - 3.5 * dense, y);
    pen.lineTo(x + 3.5 * dense, y);
    if (label) {
      pen.moveTo(x, y - 3.5 * dense);
      pen.lineTo(x, y + 3.5 * dense);
    }
    pen.stroke();
  }

  #crosshair(pen, x, y, dense) {
    for (const [colour, line] of [["rgba(0,0,0,.7)", 4], ["#fff", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line * dense;
      pen.beginPath();
      pen.moveTo(x - 14 * dense, y);
      pen.lineTo(x + 14 * dense, y);
      pen.moveTo(x, y - 14 * dense);
      pen.lineTo(x, y + 14 * dense);
      pen.stroke();
    }
  }

  #place(event) {
    const frame = this.canvas.getBoundingClientRect();
    const clamp = (value, most) => Math.min(Math.max(value, 0), most - 0.01);
    return {
      x: clamp(((event.clientX - frame.left) / frame.width) * this.#photo.width, this.#photo.width),
      y: clamp(((event.clientY - frame.top) / frame.height) * this.#photo.height, this.#photo.height),
    };
  }

  #isForeground(event) {
    return !(this.tool === "cut" || event.shiftKey || event.button === 2);
  }

  #moved(event) {
    if (!this.#photo) return;
    const place = this.#place(event);
    if (this.#drag) {
      const { start, screen } = this.#drag;
      const far = Math.hypot(event.clientX - screen.x, event.clientY - screen.y);
      if (this.tool === "box" && far >= DRAG) {
        this.#drag.box = [
          Math.min(start.x, place.x), Math.min(start.y, place.y),
          Math.max(start.x, place.x), Math.max(start.y, place.y),
        ];
        this.draw();
      }
      return;
    }
    if (event.pointerType === "touch" || this.tool === "box") return;
    this.#pointer = { ...place, foreground: this.#isForeground(event), since: event.timeStamp };
    this.#follow();
  }

  /** Asks for the mask under the pointer; places that were passed meanwhile are left out. */
  async #follow() {
    if (this.#asking) return;
    this.#asking = true;
    while (this.#pointer) {
      const { x, y, foreground, since } = this.#pointer;
      const asked = this.#pointer;
      const board = this.#board;
      const found = await this.on.hover(x, y, foreground);
      if (this.#pointer === null) break;
      if (found && board === this.#board) {
        this.#showPreview(found, foreground);
        this.stage.dataset.preview = String(Number(this.stage.dataset.preview ?? 0) + 1);
        await new Promise((resolve) => requestAnimationFrame(resolve));
        // When the frame has been painted; the page's benchmark reads these.
        const channel = new MessageChannel();
        channel.port1.onmessage = () => performance.measure("prompt to mask", { start: since, end: performance.now() });
        channel.port2.postMessage(null);
      }
      if (this.#pointer === asked) break;
    }
    this.#asking = false;
    if (this.#pointer === null) this.#showPreview(null);
  }

  #left() {
    this.#pointer = null;
    this.#drag = null;
    this.#showPreview(null);
    this.draw();
  }

  #pressed(event) {
    if (!this.#photo || event.button === 1) return;
    this.stage.focus({ preventScroll: true });
    this.#setCross(null);
    this.#drag = { start: this.#place(event), screen: { x: event.clientX, y: event.clientY }, button: event.button, shift: event.shiftKey };
    if (this.tool === "box") this.canvas.setPointerCapture(event.pointerId);
  }

  #released(event) {
    if (!this.#drag) return;
    const { start, box, button, shift } = this.#drag;
    this.#drag = null;
    this.#pointer = null;
    if (box) return this.on.box(box);
    if (this.tool === "box") return this.draw();
    const foreground = this.#isForeground({ shiftKey: shift, button });
    // A touch that scrolled the page ends in pointercancel and never comes here.
    this.on.click(start.x, start.y, foreground);
    event.preventDefault();
  }

  #setCross(cross) {
    if (this.#cross === cross) return;
    this.#cross = cross;
    if (!cross) this.#corner = null;
    this.draw();
  }

  #key(event) {
    if (!this.#photo || event.target !== this.stage) return;
    const { width, height } = this.#photo;
    const step = (event.shiftKey ? 0.1 : 0.02) * Math.max(width, height);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const move = moves[event.key];
    if (move) {
      event.preventDefault();
      const { x, y } = this.#cross ?? { x: width / 2 - move[0], y: height / 2 - move[1] };
      const place = { x: Math.min(Math.max(x + move[0], 0), width - 1), y: Math.min(Math.max(y + move[1], 0), height - 1) };
      this.#setCross(place);
      if (!this.#isTold) this.on.tell("Enter clicks at the cross, Shift+Enter removes.");
      this.#isTold = true;
      if (this.tool !== "box") {
        this.#pointer = { ...place, foreground: this.tool === "add", since: event.timeStamp };
        this.#follow();
      }
    } else if ((event.key === "Enter" || event.key === " ") && this.#cross) {
      event.preventDefault();
      const { x, y } = this.#cross;
      this.#pointer = null;
      if (this.tool !== "box") return this.on.click(x, y, this.tool === "add" && !event.shiftKey);
      if (!this.#corner) {
        this.#corner = this.#cross;
        this.on.tell("The first corner is set. Move to the opposite one and press Enter.");
        return;
      }
      const { x: u, y: v } = this.#corner;
      this.#corner = null;
      if (u !== x && v !== y) this.on.box([Math.min(u, x), Math.min(v, y), Math.max(u, x), Math.max(v, y)]);
    }
  }
}
