// Logits of a mask on the decoder's grid, and what is measured on grids: MaskLogits and the regions
// of textsam/inference/photo/prediction.py.

import { Frame, padGrid, resizeGrid, shrinkGrid } from "./frame.js";

const OUTSIDE = -10; // logits outside a window or a box

/** Logits (size x size) of a frame at rows x columns of its photo: by way of the model's square. */
function upscale(grid, size, frame, rows, columns) {
  const square = [frame.side, frame.side];
  if (frame.stretched) return resizeGrid(grid, size, [size, size], [rows, columns]);
  const inner = [frame.rows, frame.columns];
  const cut = resizeGrid(grid, size, [size, size], square, inner);
  if (inner[0] === rows && inner[1] === columns) return cut;
  return resizeGrid(cut, inner[1], inner, [rows, columns]);
}

/** Logits that are negative beyond a box [x0, y0, x1, y1] and its margin, in place. */
function limit(logits, rows, columns, [x0, y0, x1, y1], margin) {
  const across = margin * (x1 - x0);
  const down = margin * (y1 - y0);
  for (let y = 0, at = 0; y < rows; y++) {
    const inRows = y + 0.5 > y0 - down && y + 0.5 < y1 + down;
    for (let x = 0; x < columns; x++, at++) {
      const inside = inRows && x + 0.5 > x0 - across && x + 0.5 < x1 + across;
      if (!inside && logits[at] > OUTSIDE) logits[at] = OUTSIDE;
    }
  }
  return logits;
}

/** A mask of the photo, (height x width) logits, as a mask prompt of the decoder's grid. */
export function toMaskPrompt(logits, frame, size) {
  const inner = frame.covered(size);
  return padGrid(shrinkGrid(logits, [frame.height, frame.width], inner), inner, size);
}

/** Logits of one mask: one grid, or several that are blended, each of a window of the photo. */
export class MaskLogits {
  constructor(frame, size, grids, { windows = [null], weights = null, box = null, margin = 0 } = {}) {
    Object.assign(this, { frame, size, grids, windows, weights, box, margin });
  }

  with(changes) {
    const all = { ...this, ...changes };
    return new MaskLogits(all.frame, all.size, all.grids, all);
  }

  /** Logits at rows x columns of the whole photo; by default at the photo's own pixels. */
  render(rows = this.frame.height, columns = this.frame.width) {
    const logits = this.#unlimited(rows, columns);
    if (!this.box) return logits;
    const across = columns / this.frame.width;
    const down = rows / this.frame.height;
    const [x0, y0, x1, y1] = this.box;
    return limit(logits, rows, columns, [x0 * across, y0 * down, x1 * across, y1 * down], this.margin);
  }

  /** Bytes, 1 inside. */
  mask(rows, columns) {
    return threshold(this.render(rows, columns));
  }

  /** Logits on the decoder's grid of the whole photo: a mask prompt. */
  lowRes() {
    const { frame, size } = this;
    const whole = this.windows.length === 1 && this.windows[0] === null;
    const logits = whole
      ? this.grids[0].slice()
      : toMaskPrompt(this.#unlimited(frame.height, frame.width), frame, size);
    if (!this.box) return logits;
    const share = size / frame.side;
    const [a, b] = frame.toModel(this.box[0], this.box[1]);
    const [c, d] = frame.toModel(this.box[2], this.box[3]);
    return limit(logits, size, size, [a * share, b * share, c * share, d * share], this.margin);
  }

  #unlimited(rows, columns) {
    const layers = this.grids.map((grid, k) => this.#layer(grid, this.windows[k], rows, columns));
    if (!this.weights) return layers[0];
    const sum = new Float32Array(rows * columns);
    layers.forEach((layer, k) => {
      const weight = this.weights[k];
      for (let at = 0; at < sum.length; at++) sum[at] += weight * layer[at];
    });
    return sum;
  }

  #layer(grid, window, rows, columns) {
    const { frame, size } = this;
    if (!window) return upscale(grid, size, frame, rows, columns);
    const inner = new Frame(window.y1 - window.y0, window.x1 - window.x0, frame.side, frame.stretched);
    const across = columns / frame.width;
    const down = rows / frame.height;
    const x0 = Math.round(window.x0 * across);
    const y0 = Math.round(window.y0 * down);
    const w = Math.max(1, Math.round(window.x1 * across) - x0);
    const h = Math.max(1, Math.round(window.y1 * down) - y0);
    const part = upscale(grid, size, inner, h, w);
    const full = new Float32Array(rows * columns).fill(OUTSIDE);
    for (let y = 0; y < h && y0 + y < rows; y++) {
      full.set(part.subarray(y * w, y * w + Math.min(w, columns - x0)), (y0 + y) * columns + x0);
    }
    return full;
  }
}

/** Bytes, 1 where logits are positive. */
export function threshold(logits) {
  const mask = new Uint8Array(logits.length);
  for (let at = 0; at < mask.length; at++) mask[at] = logits[at] > 0 ? 1 : 0;
  return mask;
}

/** IoU of the masks at logits +1 and -1: how little the mask depends on the threshold. */
export function stability(logits, offset = 1) {
  let inner = 0;
  let outer = 0;
  for (const value of logits) {
    if (value > offset) inner++;
    if (value > -offset) outer++;
  }
  return inner / Math.max(1, outer);
}

/** 8-connected regions of rows x columns bytes: labels from 1 in reading order, and their sizes. */
export function components(mask, rows, columns) {
  const labels = new Int32Array(rows * columns);
  const sizes = [0];
  const stack = [];
  for (let start = 0; start < labels.length; start++) {
    if (!mask[start] || labels[start]) continue;
    const label = sizes.length;
    let size = 0;
    labels[start] = label;
    stack.push(start);
    while (stack.length) {
      const at = stack.pop();
      size++;
      const y = Math.floor(at / columns);
      const x = at - y * columns;
      for (let v = Math.max(0, y - 1); v <= Math.min(rows - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(columns - 1, x + 1); u++) {
          const next = v * columns + u;
          if (mask[next] && !labels[next]) {
            labels[next] = label;
            stack.push(next);
          }
        }
      }
    }
    sizes.push(size);
  }
  return { labels, sizes };
}

/** Logits (size x size) without pieces and holes of fewer than 12 cells, but for the largest. */
export function cleaned(logits, size) {
  const mask = logits.slice();
  for (const [sign, value] of [[-1, 1], [1, -1]]) {
    const { labels, sizes } = components(mask.map((each) => (each * sign > 0 ? 1 : 0)), size, size);
    const largest = sizes.indexOf(Math.max(...sizes));
    labels.forEach((label, at) => {
      if (label && label !== largest && sizes[label] < 12) mask[at] = value;
    });
  }
  return mask;
}

/** Steps (of a chess king) from each cell inside to the nearest one outside; size x size cells. */
export function depthInside(cells, size) {
  const depth = new Float32Array(size * size);
  const at = (y, x) => (y < 0 || x < 0 || y >= size || x >= size ? 0 : depth[y * size + x]);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      if (!cells[y * size + x]) continue;
      const near = Math.min(at(y - 1, x - 1), at(y - 1, x), at(y - 1, x + 1), at(y, x - 1));
      depth[y * size + x] = near + 1;
    }
  }
  for (let y = size - 1; y >= 0; y--) {
    for (let x = size - 1; x >= 0; x--) {
      if (!cells[y * size + x]) continue;
      const near = Math.min(at(y + 1, x - 1), at(y + 1, x), at(y + 1, x + 1), at(y, x + 1));
      depth[y * size + x] = Math.min(depth[y * size + x], near + 1);
    }
  }
  return depth;
}
