// Masks of everything from a grid of points: the filters of textsam/inference/automatic/generator.py
// on the decoder's grid, and a second look at what is left.

import { cleaned, MaskLogits, stability } from "./masks.js";

const BATCH = 4; // prompts decoded at once: few enough that the pointer need not wait long
const SETTINGS = { iou: 0.4, stability: 0.3, nms: 0.7, alike: 0.85, maxArea: 0.95, minArea: 0.0005 };

/** Box in cells and area of logits on the part of the grid that the photo covers. */
function cellBox(logits, size, [rows, columns]) {
  let [x0, y0, x1, y1, area] = [size, size, 0, 0, 0];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      if (logits[y * size + x] <= 0) continue;
      area++;
      x0 = Math.min(x0, x);
      x1 = Math.max(x1, x + 1);
      y0 = Math.min(y0, y);
      y1 = Math.max(y1, y + 1);
    }
  }
  return { box: [x0, y0, x1, y1], area };
}

function boxIou(a, b) {
  const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (w <= 0 || h <= 0) return 0;
  const areaOf = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
  return (w * h) / (areaOf(a) + areaOf(b) - w * h);
}

/** The items, best predicted IoU first, that no better one overlaps by more than `limit`. */
function nms(items, limit) {
  const kept = [];
  for (const item of [...items].sort((a, b) => b.iou - a.iou)) {
    if (kept.every((other) => boxIou(item.box, other.box) <= limit)) kept.push(item);
  }
  return kept;
}

function measured(item, size, covered, cells) {
  const { box, area } = cellBox(item.logits, size, covered);
  const share = area / cells;
  if (item.iou <= SETTINGS.iou || share >= SETTINGS.maxArea || share < SETTINGS.minArea) return null;
  const steady = stability(item.logits);
  return steady < SETTINGS.stability ? null : { ...item, box, area, stability: steady };
}

/** Masks of everything, the largest first; `perSide`^2 points; `onProgress` gets a share of 1. */
export async function findEverything(model, photo, { perSide = 10, check = () => {}, onProgress = () => {} }) {
  const { maskSize: size } = model;
  const covered = photo.frame.covered(size);
  const cells = covered[0] * covered[1];
  const { rows, columns } = photo.frame;
  const points = [];
  for (let y = 0; y < perSide; y++) {
    for (let x = 0; x < perSide; x++) {
      points.push({ x: ((x + 0.5) / perSide) * columns, y: ((y + 0.5) / perSide) * rows });
    }
  }
  const first = [];
  for (let at = 0; at < points.length; at += BATCH) {
    check();
    const found = await model.decodePoints(photo, points.slice(at, at + BATCH));
    for (const item of found) {
      const good = measured(item, size, covered, cells);
      if (good) first.push({ ...good, logits: good.logits.slice() });
    }
    onProgress((0.7 * Math.min(points.length, at + BATCH)) / points.length);
  }
  const chosen = nms(first, SETTINGS.alike);
  const second = [];
  const scale = model.side / size;
  for (const [number, item] of chosen.entries()) {
    check();
    const corners = [
      { x: item.box[0] * scale, y: item.box[1] * scale, label: 2 },
      { x: item.box[2] * scale, y: item.box[3] * scale, label: 3 },
    ];
    const again = await model.decode(photo, [{ ...item.point, label: 1 }, ...corners], { mask: item.logits });
    const good = measured({ logits: again.grids[0], iou: again.iou[0] }, size, covered, cells);
    if (good) second.push(good);
    onProgress(0.7 + (0.3 * (number + 1)) / chosen.length);
  }
  return nms(second, SETTINGS.nms)
    .sort((a, b) => b.area - a.area)
    .map((item) => ({
      mask: new MaskLogits(photo.frame, size, [cleaned(item.logits, size)]),
      iou: item.iou,
      stability: item.stability,
    }));
}
