// From the map of a phrase to masks: textsam/inference/strategies/regions.py.

import { sigmoid } from "./frame.js";
import { components, depthInside } from "./masks.js";

const MIN_HOLE_CELLS = 4;

/** Regions of a map of probabilities (size x size) above a level, highest peak first. */
export function findRegions(probability, size, level, settings) {
  const { labels, sizes } = components(probability.map((p) => (p > level ? 1 : 0)), size, size);
  const peaks = new Float64Array(sizes.length);
  labels.forEach((label, at) => {
    if (label) peaks[label] = Math.max(peaks[label], probability[at]);
  });
  const numbers = sizes
    .map((count, label) => ({ count, label }))
    .filter(({ count, label }) => label > 0 && count >= settings.min_cells)
    .sort((a, b) => peaks[b.label] - peaks[a.label]);
  const regions = [];
  let left = settings.max_points;
  for (const { label, count } of numbers) {
    if (left <= 0) break;
    const cells = Uint8Array.from(labels, (each) => (each === label ? 1 : 0));
    const points = regionPeaks(probability, cells, size, Math.min(settings.points, left), settings);
    left -= points.length;
    regions.push({ cells, points, count, peak: peaks[label] });
  }
  return regions;
}

/** Peaks of a region, the best first, each hiding its surroundings: [x, y] in cells. */
function regionPeaks(probability, cells, size, maxPoints, settings) {
  const height = new Float32Array(size * size);
  for (let y = 0, at = 0; y < size; y++) {
    for (let x = 0; x < size; x++, at++) {
      if (!cells[at]) continue;
      let sum = 0;
      for (let v = Math.max(0, y - 2); v <= Math.min(size - 1, y + 2); v++) {
        for (let u = Math.max(0, x - 2); u <= Math.min(size - 1, x + 2); u++) {
          const k = v * size + u;
          if (cells[k]) sum += probability[k];
        }
      }
      height[at] = sum / 25;
    }
  }
  const reach = depthInside(cells, size);
  const lowest = settings.min_peak_ratio * height.reduce((a, b) => Math.max(a, b), 0);
  const points = [];
  while (points.length < maxPoints) {
    let best = 0;
    for (let at = 1; at < height.length; at++) if (height[at] > height[best]) best = at;
    if (height[best] <= 0 || height[best] < lowest) break;
    const y = Math.floor(best / size);
    const x = best - y * size;
    points.push([x + 0.5, y + 0.5]);
    const radius = Math.max(settings.min_peak_distance, settings.peak_distance_ratio * reach[best]);
    for (let v = 0, at = 0; v < size; v++) {
      for (let u = 0; u < size; u++, at++) {
        if ((v - y) ** 2 + (u - x) ** 2 <= radius ** 2) height[at] = -1;
      }
    }
  }
  return points;
}

/** Masks of the objects in the regions of a phrase's map, best quality first. */
export class RegionDecoder {
  /** `decode(point, mask)` runs the decoder at [x, y] in model pixels: mask 0 and its IoU. */
  constructor({ decode, logits, size, side, covered, settings }) {
    Object.assign(this, { decode, logits, size, side, covered, settings });
    this.probability = logits.map(sigmoid);
  }

  async proposals(regions) {
    const everywhere = new Uint8Array(this.logits.length);
    for (const { cells } of regions) cells.forEach((inside, at) => inside && (everywhere[at] = 1));
    const found = [];
    for (const region of regions) {
      const map = this.logits.map((value, at) =>
        everywhere[at] && !region.cells[at] ? -Math.abs(value) : value,
      );
      const whole = await this.at(region, region.points[0], map);
      const lone = region.points.length === 1;
      if (whole && (lone || accounted([whole], region) >= this.settings.sure)) found.push(whole);
      else found.push(...this.choose(whole, await this.oneByOne(region), region));
    }
    return found.sort((a, b) => b.quality - a.quality);
  }

  /** Both readings of a region, one of them rejected. */
  choose(whole, parts, region) {
    if (!whole) return parts;
    const one = accounted([whole], region);
    const several = accounted(parts, region);
    if (parts.length > 1 && several > one * this.settings.min_several_ratio) {
      return [...parts, { ...whole, rejected: true }];
    }
    return [whole, ...parts.map((part) => ({ ...part, rejected: true }))];
  }

  /** Masks of a region's points without its map. */
  async oneByOne(region) {
    const masks = [];
    let waiting = [...region.points];
    const known = new Float32Array(this.logits.length);
    while (waiting.length) {
      const item = await this.at(region, waiting.shift(), null);
      if (!item) continue;
      masks.push(item);
      for (let at = 0; at < known.length; at++) {
        if (item.logits[at] > 0) known[at] += Math.max(0, item.iou);
      }
      waiting = waiting.filter(([x, y]) => {
        return known[Math.floor(y) * this.size + Math.floor(x)] < this.settings.max_known_iou;
      });
    }
    return masks;
  }

  /** The mask at a point of a region; null if it is empty. */
  async at(region, [x, y], map) {
    const scale = this.side / this.size;
    const point = [x * scale, y * scale];
    const { logits, iou } = await this.decode(point, map);
    let [count, sum, best] = [0, 0, 0];
    for (let row = 0; row < this.covered[0]; row++) {
      for (let column = 0; column < this.covered[1]; column++) {
        const at = row * this.size + column;
        if (logits[at] <= 0) continue;
        count++;
        sum += this.probability[at];
        best = Math.max(best, this.probability[at]);
      }
    }
    if (!count) return null;
    const mean = sum / count;
    return { logits, iou, point, region, mean, best, rejected: false, quality: Math.max(0, iou) * mean };
  }
}

/** Mean over a region's cells of the quality of the best mask there; 0 where none is. */
function accounted(masks, region) {
  const left = region.cells.slice();
  let value = 0;
  for (const item of [...masks].sort((a, b) => b.quality - a.quality)) {
    let common = 0;
    for (let at = 0; at < left.length; at++) {
      if (item.logits[at] <= 0) continue;
      common += left[at];
      left[at] = 0;
    }
    value += (item.quality * common) / region.count;
  }
  return value;
}

/** Logits without the pieces that do not touch their region, and without small holes. */
export function tidied(logits, cells, size, maxHoleRatio) {
  const mask = logits.slice();
  const pieces = components(mask.map((value) => (value > 0 ? 1 : 0)), size, size).labels;
  const own = new Set();
  pieces.forEach((piece, at) => piece && cells[at] && own.add(piece));
  if (own.size) pieces.forEach((piece, at) => piece && !own.has(piece) && (mask[at] = -1));
  const { labels, sizes } = components(mask.map((value) => (value <= 0 ? 1 : 0)), size, size);
  const area = mask.reduce((sum, value) => sum + (value > 0 ? 1 : 0), 0);
  const limit = Math.max(MIN_HOLE_CELLS, Math.trunc(maxHoleRatio * area));
  labels.forEach((gap, at) => gap && sizes[gap] <= limit && (mask[at] = 1));
  return mask;
}
