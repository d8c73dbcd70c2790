// Colours of masks as people name them: textsam/values/colours.py.

const RANGES = {
  red: [[335, 378], [0.45, 1], [0.22, 1]],
  orange: [[10, 46], [0.4, 1], [0.5, 1]],
  yellow: [[28, 76], [0.3, 1], [0.4, 1]],
  green: [[62, 172], [0.15, 1], [0.1, 1]],
  blue: [[165, 262], [0.15, 1], [0.12, 1]],
  purple: [[245, 325], [0.15, 1], [0.12, 1]],
  pink: [[295, 375], [0.12, 0.75], [0.5, 1]],
  brown: [[5, 48], [0.2, 1], [0.1, 0.7]],
  black: [[0, 360], [0, 1], [0, 0.27]],
  white: [[0, 360], [0, 0.2], [0.65, 1]],
  grey: [[0, 360], [0, 0.2], [0.2, 0.85]],
};
const CLOSE = {
  red: ["orange", "pink", "brown"],
  orange: ["red", "yellow", "brown"],
  yellow: ["orange", "brown"],
  green: ["yellow", "blue"],
  blue: ["purple", "green"],
  purple: ["blue", "pink"],
  pink: ["red", "purple", "orange"],
  brown: ["red", "orange", "black", "yellow"],
  black: ["grey", "brown"],
  white: ["grey"],
  grey: ["black", "white"],
};
const MIN_SHARE = 0.25;
const MIN_OF_OTHERS = 0.6;
const SAMPLES = 96;

const single = Math.fround;

/** Pillow's conversion to HSV, whose channels are bytes; it computes in single precision. */
function hsv(r, g, b) {
  const high = Math.max(r, g, b);
  const low = Math.min(r, g, b);
  if (high === low) return [0, 0, high];
  const range = high - low;
  const [rc, gc, bc] = [r, g, b].map((value) => single((high - value) / range));
  let hue = r === high ? single(bc - gc) : g === high ? single(2 + rc - bc) : single(4 + gc - rc);
  hue = single((hue / 6 + 1) % 1);
  return [Math.trunc(hue * 255), Math.trunc(single(range / high) * 255), high];
}

const within = (value, [low, high]) => value >= single(low) && value <= single(high);

/**
 * How well a mask goes by a colour, 0 to 1.
 * `data` RGBA bytes, `mask` bytes of the same height x width, `box` half-open.
 */
export function colourMatch(data, mask, width, [x0, y0, x1, y1], colour) {
  // Rounded as in Python, halves to even; the difference is a sample more or less.
  const step = Math.max(1, Math.round(Math.max(x1 - x0, y1 - y0) / SAMPLES));
  const names = Object.keys(RANGES);
  const counts = Object.fromEntries(names.map((name) => [name, 0]));
  let total = 0;
  for (let y = y0; y < y1; y += step) {
    for (let x = x0; x < x1; x += step) {
      const at = y * width + x;
      if (!mask[at]) continue;
      total++;
      const [h, s, v] = hsv(data[4 * at], data[4 * at + 1], data[4 * at + 2]);
      const degrees = single(single(h / 255) * 360);
      for (const name of names) {
        const [hues, saturations, values] = RANGES[name];
        const fits = within(degrees, hues) || within(single(degrees + 360), hues);
        if (fits && within(single(s / 255), saturations) && within(single(v / 255), values)) counts[name]++;
      }
    }
  }
  const share = (name) => counts[name] / Math.max(1, total);
  const others = names.filter((name) => name !== colour && !CLOSE[colour].includes(name));
  return Math.min(1, share(colour) / Math.max(MIN_SHARE, MIN_OF_OTHERS * Math.max(...others.map(share))));
}
