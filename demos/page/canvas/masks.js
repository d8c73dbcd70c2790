// Masks from COCO's run-length codes: a bitmap for the tint, a path for the outline.

// COCO's compressed code (rleFrString in pycocotools' maskApi.c): 5 bits and a flag per letter; from
// the fourth run on, differences to the run before the last.
function decodeRuns(counts) {
  const runs = [];
  let at = 0;
  while (at < counts.length) {
    let value = 0;
    let shift = 0;
    let more = true;
    while (more) {
      const bits = counts.charCodeAt(at) - 48;
      value += (bits & 31) * 2 ** shift;
      more = Boolean(bits & 32);
      at += 1;
      shift += 5;
      if (!more && bits & 16) value -= 2 ** shift;
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

// A mask of w x h pixels with a border of one pixel, row by row; COCO counts down the columns.
function decodeMask(counts, w, h) {
  const wide = w + 2;
  const mask = new Uint8Array(wide * (h + 2));
  let [x, y] = [0, 0];
  decodeRuns(counts).forEach((length, index) => {
    let left = length;
    while (left > 0) {
      const run = Math.min(left, h - y);
      if (index % 2) {
        let place = (y + 1) * wide + x + 1;
        for (let n = 0; n < run; n += 1, place += wide) mask[place] = 1;
      }
      left -= run;
      y += run;
      if (y === h) [x, y] = [x + 1, 0];
    }
  });
  return mask;
}

function tintOf(mask, w, h, [red, green, blue]) {
  const sheet = document.createElement("canvas");
  sheet.width = w;
  sheet.height = h;
  const pixels = new ImageData(w, h);
  const words = new Uint32Array(pixels.data.buffer);
  const word = (255 << 24) | (blue << 16) | (green << 8) | red; // little-endian, like every browser
  for (let y = 0; y < h; y += 1) {
    const row = (y + 1) * (w + 2) + 1;
    for (let x = 0; x < w; x += 1) if (mask[row + x]) words[y * w + x] = word;
  }
  sheet.getContext("2d").putImageData(pixels, 0, 0);
  return sheet;
}

// An object at the edge of the photo goes on beyond it: no outline is drawn along the edge.
function extendBeyondPhoto(mask, w, h, x0, y0, photo) {
  const wide = w + 2;
  if (x0 === 0) for (let y = 0; y < h + 2; y += 1) mask[y * wide] = mask[y * wide + 1];
  if (x0 + w === photo.width) for (let y = 0; y < h + 2; y += 1) mask[y * wide + w + 1] = mask[y * wide + w];
  if (y0 === 0) mask.copyWithin(0, wide, 2 * wide);
  if (y0 + h === photo.height) mask.copyWithin((h + 1) * wide, h * wide, (h + 1) * wide);
}

// The 16 cases of marching squares: which sides each line joins; 0 top, 1 right, 2 bottom, 3 left.
const linePieces = [
  [], [[3, 2]], [[2, 1]], [[3, 1]], [[0, 1]], [[0, 3], [2, 1]], [[0, 2]], [[0, 3]],
  [[0, 3]], [[0, 2]], [[0, 1], [3, 2]], [[0, 1]], [[3, 1]], [[2, 1]], [[3, 2]], [],
];
const lineEnds = [[0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]];

// Marching squares on the centres of the pixels.
function outlineOf(mask, w, h, x0, y0) {
  const path = new Path2D();
  const wide = w + 2;
  for (let y = 0; y <= h; y += 1) {
    for (let x = 0; x <= w; x += 1) {
      const at = y * wide + x;
      const kind = mask[at] * 8 + mask[at + 1] * 4 + mask[at + wide + 1] * 2 + mask[at + wide];
      if (kind === 0 || kind === 15) continue;
      for (const [from, to] of linePieces[kind]) {
        path.moveTo(x0 + x + lineEnds[from][0] - 0.5, y0 + y + lineEnds[from][1] - 0.5);
        path.lineTo(x0 + x + lineEnds[to][0] - 0.5, y0 + y + lineEnds[to][1] - 0.5);
      }
    }
  }
  return path;
}

// Decoded masks by their code, so that an answer decodes only the masks that changed.
const layers = new Map();

function layerOf(item, photo) {
  const [x0, y0, x1, y1] = item.box;
  const key = `${photo.url} ${item.box} ${item.color} ${item.counts}`;
  let layer = layers.get(key);
  if (!layer) {
    const [w, h] = [x1 - x0, y1 - y0];
    const mask = decodeMask(item.counts, w, h);
    const tint = tintOf(mask, w, h, item.color);
    extendBeyondPhoto(mask, w, h, x0, y0, photo);
    layer = { tint, line: outlineOf(mask, w, h, x0, y0) };
    layers.set(key, layer);
  }
  return layer;
}

function forgetLayers(objects, photo) {
  const wanted = new Set(objects.map((t) => `${photo.url} ${t.box} ${t.color} ${t.counts}`));
  for (const key of layers.keys()) if (!wanted.has(key)) layers.delete(key);
}
