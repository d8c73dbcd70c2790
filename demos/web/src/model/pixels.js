// Pillow's bilinear resize with antialiasing, to the bit: the model was trained on its pixels.
// Photos are RGBA bytes, as a canvas gives them; A is ignored.

const BITS = 22; // fixed point of Pillow's 8-bit path: 32 - 8 - 2

/** Pillow's precompute_coeffs for the triangle filter over the whole side. */
function coefficients(from, to) {
  const scale = from / to;
  const reach = Math.max(scale, 1);
  const size = Math.ceil(reach) * 2 + 1;
  const starts = new Int32Array(to);
  const counts = new Int32Array(to);
  const weights = new Int32Array(to * size);
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach + 0.5));
    const raw = [];
    for (let k = start; k < end; k++) {
      raw.push(Math.max(0, 1 - Math.abs((k - centre + 0.5) * (1 / reach))));
    }
    const sum = raw.reduce((a, b) => a + b, 0);
    starts[i] = start;
    counts[i] = raw.length;
    raw.forEach((weight, k) => {
      weights[i * size + k] = Math.trunc(0.5 + (weight / sum) * 2 ** BITS);
    });
  }
  return { starts, counts, weights, size };
}

const clip = (sum) => {
  const value = sum >> BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
};

/** Resizes RGBA bytes to rows x columns of RGB bytes. */
export function resizePhoto(data, height, width, rows, columns) {
  const half = 1 << (BITS - 1);
  const across = coefficients(width, columns);
  const down = coefficients(height, rows);
  const wide = new Uint8Array(height * columns * 3);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < columns; x++, to += 3) {
      let r = half, g = half, b = half;
      let at = (y * width + across.starts[x]) * 4;
      for (let k = 0, w = x * across.size; k < across.counts[x]; k++, w++, at += 4) {
        const weight = across.weights[w];
        r += data[at] * weight;
        g += data[at + 1] * weight;
        b += data[at + 2] * weight;
      }
      wide[to] = clip(r);
      wide[to + 1] = clip(g);
      wide[to + 2] = clip(b);
    }
  }
  const row = columns * 3;
  const out = new Uint8Array(rows * row);
  const sums = new Int32Array(row);
  for (let y = 0; y < rows; y++) {
    sums.fill(half);
    for (let k = 0; k < down.counts[y]; k++) {
      const weight = down.weights[y * down.size + k];
      const from = (down.starts[y] + k) * row;
      for (let x = 0; x < row; x++) sums[x] += wide[from + x] * weight;
    }
    for (let x = 0, to = y * row; x < row; x++, to++) out[to] = clip(sums[x]);
  }
  return out;
}

/** Cuts a window {x0, y0, x1, y1} out of RGBA bytes. */
export function cutPhoto(data, width, { x0, y0, x1, y1 }) {
  const row = (x1 - x0) * 4;
  const out = new Uint8ClampedArray(row * (y1 - y0));
  for (let y = y0; y < y1; y++) {
    const from = (y * width + x0) * 4;
    out.set(data.subarray(from, from + row), (y - y0) * row);
  }
  return out;
}

/** The encoder's input (3, S, S): normalised, with zeros where the photo does not reach. */
export function toInput(rgb, frame, mean, std) {
  const { side, rows, columns } = frame;
  const out = new Float32Array(3 * side * side);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < rows; y++) {
      let to = (c * side + y) * side;
      for (let x = 0, from = y * columns * 3 + c; x < columns; x++, from += 3) {
        out[to++] = (rgb[from] - mean[c]) / std[c];
      }
    }
  }
  return out;
}
