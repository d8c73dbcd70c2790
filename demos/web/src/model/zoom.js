// From a prompt to masks, on the whole photo or on a window around the object where that shows more:
// textsam/inference/photo/zoom.py.

import { MaskLogits, threshold, toMaskPrompt } from "./masks.js";
import { maskBox } from "./rle.js";

const PAD = { x: 0, y: 0, label: -1 }; // the released code's padding point of a prompt without a box

/** A prompt: points {x, y, label} in photo pixels, a box [x0, y0, x1, y1] or null, a phrase or null. */
export const emptyPrompt = { points: [], box: null, phrase: null };

const contains = (outer, inner) =>
  outer.x0 <= inner.x0 && outer.y0 <= inner.y0 && outer.x1 >= inner.x1 && outer.y1 >= inner.y1;
const lengthOf = ({ x0, y0, x1, y1 }) => Math.max(x1 - x0, y1 - y0);
const sameWindow = (a, b) => contains(a, b) && contains(b, a);

/** The last window that was encoded; clicks on one object share it. */
export class WindowCache {
  #last = null;
  #isOfAnother = false;

  startObject() {
    this.#isOfAnother = true;
  }

  find(window, reuse) {
    if (!this.#last) return null;
    const last = this.#last.window;
    if (this.#isOfAnother) return sameWindow(last, window) ? this.#last : null;
    const fits = contains(last, window) && lengthOf(window) >= reuse * lengthOf(last);
    return fits ? this.#last : null;
  }

  keep(window, photo) {
    this.#last = { window, photo };
    this.#isOfAnother = false;
  }
}

/** The decoder's four masks of a prompt on one encoded photo (or window). */
export async function decodeOn(model, photo, prompt, maskPrompt = null) {
  const { frame } = photo;
  const points = prompt.points.map(({ x, y, label }) => {
    const [u, v] = frame.toModel(x, y);
    return { x: u, y: v, label };
  });
  if (prompt.box) {
    const [x0, y0, x1, y1] = prompt.box;
    [[x0, y0, 2], [x1, y1, 3]].forEach(([x, y, label]) => {
      const [u, v] = frame.toModel(x, y);
      points.push({ x: u, y: v, label });
    });
  } else {
    points.push(PAD);
  }
  const output = await model.decode(photo, points, { mask: maskPrompt, phrase: prompt.phrase });
  return {
    iou: output.iou,
    masks: output.grids.map((grid) => new MaskLogits(frame, model.maskSize, [grid])),
  };
}

/** A look at the whole photo: what comes first, and what the pointer previews. */
export async function predictOnce(model, photo, prompt, previous = null) {
  const found = await decodeOn(model, photo, prompt, previous?.lowRes() ?? null);
  return withinBox(found, prompt, model.focus);
}

/** `predictOnce`, then closer looks where they show more. `check` throws when the job is over. */
export async function predict(model, photo, prompt, { cache, previous = null, check = () => {}, onFirst = () => {} }) {
  const looks = new Looks(model, photo, prompt, cache, check);
  const found = await looks.run(previous, onFirst);
  return withinBox(found, prompt, model.focus);
}

class Looks {
  constructor(model, photo, prompt, cache, check) {
    Object.assign(this, { model, photo, prompt, cache, check, focus: model.focus });
  }

  async run(previous, onFirst) {
    const { prompt, photo, model } = this;
    if (!this.focus) return decodeOn(model, photo, prompt, previous?.lowRes() ?? null);
    let first = null;
    let guide = previous ? previous.render() : null;
    if (!guide && !prompt.box) {
      first = await this.whole();
      onFirst(first);
      if (prompt.points.length + (prompt.phrase ? 1 : 0) === 1) return this.blend(first);
      guide = first.masks[0].render();
    }
    const secondPass = !guide;
    if (!first) onFirst(withinBox(await this.whole(previous?.lowRes() ?? null), prompt, this.focus));
    const window = chooseWindow(photo.frame, prompt, guide, this.focus);
    if (window) {
      let closer = await this.window(window, guide);
      if (secondPass) {
        guide = withinBox(closer, prompt, this.focus).masks[0].render();
        closer = await this.window(window, guide);
      }
      return closer;
    }
    if (first) return first;
    let answer = await this.whole(previous?.lowRes() ?? null);
    if (secondPass) {
      answer = await this.whole(withinBox(answer, prompt, this.focus).masks[0].lowRes());
    }
    return answer;
  }

  whole(maskPrompt = null) {
    this.check();
    return decodeOn(this.model, this.photo, this.prompt, maskPrompt);
  }

  async window(window, guide) {
    this.check();
    const { model, photo, prompt } = this;
    let known = this.cache.find(window, this.focus.reuse);
    if (!known) known = { window, photo: await model.encodeWindow(photo, window) };
    this.check();
    this.cache.keep(known.window, known.photo);
    const { x0, y0, x1, y1 } = known.window;
    const [width, height] = [x1 - x0, y1 - y0];
    const inside = {
      ...prompt,
      points: prompt.points.map((point) => ({ ...point, x: point.x - x0, y: point.y - y0 })),
      box: prompt.box && [
        Math.min(Math.max(prompt.box[0] - x0, 0), width),
        Math.min(Math.max(prompt.box[1] - y0, 0), height),
        Math.min(Math.max(prompt.box[2] - x0, 0), width),
        Math.min(Math.max(prompt.box[3] - y0, 0), height),
      ],
    };
    let mask = null;
    if (guide) {
      const part = new Float32Array(width * height);
      for (let y = 0; y < height; y++) {
        const from = (y0 + y) * photo.frame.width + x0;
        part.set(guide.subarray(from, from + width), y * width);
      }
      mask = toMaskPrompt(part, known.photo.frame, model.maskSize);
    }
    const found = await decodeOn(model, known.photo, inside, mask);
    const masks = found.masks.map(
      ({ grids, size }) => new MaskLogits(photo.frame, size, grids, { windows: [known.window] }),
    );
    return { iou: found.iou, masks };
  }

  /** Each reading of an ambiguous prompt on its window; the best is blended with the others. */
  async blend(first) {
    const { photo, prompt, focus } = this;
    const { width, height } = photo.frame;
    const everywhere = { x0: 0, y0: 0, x1: width, y1: height };
    const masks = first.masks.map((mask) => mask.with({ windows: [everywhere] }));
    const iou = [...first.iou];
    const guides = [1, 2, 3].map((k) => {
      const guide = first.masks[k].render();
      return { k, guide, area: threshold(guide).reduce((a, b) => a + b, 0) };
    });
    guides.sort((a, b) => b.area - a.area);
    for (const { k, guide } of guides) {
      const window = chooseWindow(photo.frame, prompt, guide, focus);
      if (!window) continue;
      const closer = await this.window(window, guide);
      masks[k] = closer.masks[0];
      iou[k] = closer.iou[0];
    }
    const best = [1, 2, 3].reduce((a, b) => (iou[b] > iou[a] ? b : a));
    const raw = [1, 2, 3].map((k) => Math.exp(focus.blend * (iou[k] - iou[best])));
    const sum = raw.reduce((a, b) => a + b, 0);
    masks[best] = new MaskLogits(photo.frame, masks[1].size, [1, 2, 3].flatMap((k) => masks[k].grids), {
      windows: [1, 2, 3].flatMap((k) => masks[k].windows),
      weights: raw.map((weight) => weight / sum),
    });
    masks[0] = masks[best];
    iou[0] = iou[best];
    return { masks, iou };
  }
}

function withinBox(found, prompt, focus) {
  if (!prompt.box || !focus) return found;
  const margin = focus.box_margin;
  return { ...found, masks: found.masks.map((mask) => mask.with({ box: prompt.box, margin })) };
}

/** The window around a prompt's box, or else a mask; null where the whole photo shows it as well. */
export function chooseWindow(frame, prompt, guide, focus) {
  const { width, height } = frame;
  let box = prompt.box;
  if (!box) {
    const found = guide && maskBox(threshold(guide), height, width);
    if (!found?.area) return null;
    box = found.box;
  }
  const xs = [box[0], box[2], ...prompt.points.map(({ x }) => x)];
  const ys = [box[1], box[3], ...prompt.points.map(({ y }) => y)];
  const sides = [xs, ys].map((values) => {
    const low = Math.min(...values);
    const high = Math.max(...values);
    return { centre: (low + high) / 2, extent: high - low };
  });
  const longest = Math.max(sides[0].extent, sides[1].extent, focus.min_side);
  const [x, y] = sides.map(({ centre, extent }) => {
    const half = (Math.max(extent, 0.75 * longest) * focus.grow) / 2;
    return [Math.floor(centre - half), Math.ceil(centre + half)];
  });
  const window = {
    x0: Math.max(0, x[0]),
    y0: Math.max(0, y[0]),
    x1: Math.min(width, x[1]),
    y1: Math.min(height, y[1]),
  };
  return lengthOf(window) > focus.limit * Math.max(width, height) ? null : window;
}

/** The readings of a lone click, likeliest first; mask 0 for every other prompt. */
export function readingsOf(found, prompt, previous) {
  const lone = prompt.points.length === 1 && !prompt.box && !prompt.phrase && !previous;
  const order = lone ? [1, 2, 3].sort((a, b) => found.iou[b] - found.iou[a]) : [0];
  return order.map((k) => ({ mask: found.masks[k], iou: found.iou[k] }));
}
