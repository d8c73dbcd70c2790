// Masks from COCO's run-length codes: a bitmap for the tint, a path for the outline.

// COCO's compressed code (pycocotools, maskApi.c): six bits a letter, differences from the third on.
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

// A mask of w x h pixels, row by row, 1 inside; the code goes down the columns.
function decodeMask(counts, w, h) {
  const mask = new Uint8Array(w * h);
  let place = 0;
  decodeRuns(counts).forEach((length, index) => {
    if (index % 2) {
      for (let p = place; p < place + length; p += 1) mask[(p % h) * w + Math.floor(p / h)] = 1;
    }
    place += length;
  });
  return mask;
}

function tintOf(mask, w, h, color) {
  const sheet = document.createElement("canvas");
  sheet.width = w;
  sheet.height = h;
  const pixels = new ImageData(w, h);
  for (let p = 0; p < mask.length; p += 1) {
    if (mask[p]) pixels.data.set([color[0], color[1], color[2], 255], p * 4);
  }
  sheet.getContext("2d").putImageData(pixels, 0, 0);
  return sheet;
}

// Marching squares on the pixels' centres: the line runs between inside and outside, corners cut.
// Where a mask reaches the border of the photo the thing goes on beyond it, so no line is drawn.
function outlineOf(mask, w, h, x0, y0, photo) {
  const path = new Path2D();
  const at = (x, y) => {
    const clampedX = x < 0 && x0 === 0 ? 0 : x >= w && x0 + w === photo.width ? w - 1 : x;
    const clampedY = y < 0 && y0 === 0 ? 0 : y >= h && y0 + h === photo.height ? h - 1 : y;
    if (clampedX < 0 || clampedY < 0 || clampedX >= w || clampedY >= h) return 0;
    return mask[clampedY * w + clampedX];
  };
  // Ends of the pieces for each of the 16 cases: 0 top, 1 right, 2 bottom, 3 left.
  const pieces = [
    [], [[3, 2]], [[2, 1]], [[3, 1]], [[0, 1]], [[0, 3], [2, 1]], [[0, 2]], [[0, 3]],
    [[0, 3]], [[0, 2]], [[0, 1], [3, 2]], [[0, 1]], [[3, 1]], [[2, 1]], [[3, 2]], [],
  ];
  const ends = [[0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]];
  for (let y = -1; y < h; y += 1) {
    for (let x = -1; x < w; x += 1) {
      const kind = at(x, y) * 8 + at(x + 1, y) * 4 + at(x + 1, y + 1) * 2 + at(x, y + 1);
      for (const [from, to] of pieces[kind]) {
        path.moveTo(x + ends[from][0] + 0.5 + x0, y + ends[from][1] + 0.5 + y0);
        path.lineTo(x + ends[to][0] + 0.5 + x0, y + ends[to][1] + 0.5 + y0);
      }
    }
  }
  return path;
}

// Decoded masks are kept by their code, so that an answer redraws only what changed.
const layers = new Map();

function layerOf(thing, photo) {
  const [x0, y0, x1, y1] = thing.box;
  const key = `${photo.url} ${thing.box} ${thing.color} ${thing.counts}`;
  let layer = layers.get(key);
  if (!layer) {
    const [w, h] = [x1 - x0, y1 - y0];
    const mask = decodeMask(thing.counts, w, h);
    layer = { tint: tintOf(mask, w, h, thing.color), line: outlineOf(mask, w, h, x0, y0, photo) };
    layer.mask = mask;
    layers.set(key, layer);
  }
  return layer;
}

function forgetLayers(things, photo) {
  const wanted = new Set(things.map((t) => `${photo.url} ${t.box} ${t.color} ${t.counts}`));
  for (const key of layers.keys()) if (!wanted.has(key)) layers.delete(key);
}
