// Frames and grids, as in textsam/values/geometry.py: how a photo lies in the model's square, and
// the interpolations of PyTorch (align_corners=False) between the grids.

/** Rounds halves to even, as Python's `round`. */
function roundEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

/** One photo of height x width pixels in the model's square of side `side`. */
export class Frame {
  constructor(height, width, side, stretched = false) {
    Object.assign(this, { height, width, side, stretched });
    const scale = side / Math.max(height, width);
    this.rows = stretched ? side : Math.max(1, Math.floor(height * scale + 0.5));
    this.columns = stretched ? side : Math.max(1, Math.floor(width * scale + 0.5));
  }

  /** Rows and columns that the photo covers of `size` x `size` cells. */
  covered(size) {
    const share = size / this.side;
    return [
      Math.max(1, roundEven(this.rows * share)),
      Math.max(1, roundEven(this.columns * share)),
    ];
  }

  toModel(x, y) {
    return [(x * this.columns) / this.width, (y * this.rows) / this.height];
  }

  toPhoto(x, y) {
    return [(x * this.width) / this.columns, (y * this.height) / this.rows];
  }
}

/** For each of `to` places: the two source places between which it lies, and the second's weight. */
function taps(from, to) {
  const first = new Int32Array(to);
  const second = new Int32Array(to);
  const weight = new Float32Array(to);
  for (let i = 0; i < to; i++) {
    const place = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    first[i] = Math.min(from - 1, Math.floor(place));
    second[i] = Math.min(from - 1, first[i] + 1);
    weight[i] = place - first[i];
  }
  return { first, second, weight };
}

/**
 * Bilinear resize of the top left rows x columns of a grid with `stride` values in a row.
 * With `cut` only the first [rows, columns] of the result are computed.
 */
export function resizeGrid(grid, stride, [rows, columns], [toRows, toColumns], cut) {
  const [keptRows, keptColumns] = cut ?? [toRows, toColumns];
  const across = taps(columns, toColumns);
  const down = taps(rows, toRows);
  const wide = new Float32Array(rows * keptColumns);
  for (let y = 0; y < rows; y++) {
    for (let x = 0, to = y * keptColumns, from = y * stride; x < keptColumns; x++, to++) {
      const a = grid[from + across.first[x]];
      wide[to] = a + (grid[from + across.second[x]] - a) * across.weight[x];
    }
  }
  const out = new Float32Array(keptRows * keptColumns);
  for (let y = 0; y < keptRows; y++) {
    const upper = down.first[y] * keptColumns;
    const lower = down.second[y] * keptColumns;
    const weight = down.weight[y];
    for (let x = 0, to = y * keptColumns; x < keptColumns; x++, to++) {
      const a = wide[upper + x];
      out[to] = a + (wide[lower + x] - a) * weight;
    }
  }
  return out;
}

/** Means over areas: PyTorch's interpolate(mode="area"). */
export function shrinkGrid(grid, [rows, columns], [toRows, toColumns]) {
  const out = new Float32Array(toRows * toColumns);
  const wide = new Float64Array(rows * toColumns);
  for (let x = 0; x < toColumns; x++) {
    const start = Math.floor((x * columns) / toColumns);
    const end = Math.ceil(((x + 1) * columns) / toColumns);
    for (let y = 0; y < rows; y++) {
      let sum = 0;
      for (let k = start; k < end; k++) sum += grid[y * columns + k];
      wide[y * toColumns + x] = sum / (end - start);
    }
  }
  for (let y = 0; y < toRows; y++) {
    const start = Math.floor((y * rows) / toRows);
    const end = Math.ceil(((y + 1) * rows) / toRows);
    for (let x = 0; x < toColumns; x++) {
      let sum = 0;
      for (let k = start; k < end; k++) sum += wide[k * toColumns + x];
      out[y * toColumns + x] = sum / (end - start);
    }
  }
  return out;
}

/** A grid of rows x columns in the top left corner of size x size cells that are surely outside. */
export function padGrid(grid, [rows, columns], size, outside = -8) {
  const out = new Float32Array(size * size).fill(outside);
  for (let y = 0; y < rows; y++) {
    out.set(grid.subarray(y * columns, (y + 1) * columns), y * size);
  }
  return out;
}

export const sigmoid = (x) => 1 / (1 + Math.exp(-x));
