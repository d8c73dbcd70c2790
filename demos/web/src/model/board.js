// What is on the photo: objects, the one that clicks correct, and the way back (undo, redo).
// Each step is a new list; objects never change, so that going back costs nothing.

import { findEverything } from "./everything.js";
import { cleaned, stability, threshold } from "./masks.js";
import { findPhrase } from "./phrases.js";
import { encodeRuns, maskBox, maskRuns } from "./rle.js";
import { emptyPrompt, predict, predictOnce, readingsOf, WindowCache } from "./zoom.js";

const SHOWN = 1024; // long side of masks as they are shown, pixels
const HOVERED = 512; // and of previews
const EMPTY = { objects: [], active: null, isFresh: false, phrases: [] };

function scaled({ width, height }, side) {
  const scale = Math.min(1, side / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

export class Board {
  #model;
  #post;
  #photo = null;
  #size = null; // of the photo as it was opened; the working size is the frame's
  #history = [EMPTY];
  #place = 0;
  #cache = new WindowCache();
  #next = 1;
  #versions = new Map(); // id -> the mask that the page has
  #shown = new WeakMap(); // mask -> { data, area } at the size that is shown

  constructor(model, post) {
    this.#model = model;
    this.#post = post;
  }

  get #state() {
    return this.#history[this.#place];
  }

  /** Opens RGBA bytes of the working size; `original` is the size of what is saved. */
  async open(data, { width, height }, original) {
    this.#photo = null;
    const photo = await this.#model.encode(data, height, width);
    this.#photo = photo;
    this.#size = original;
    this.#history = [EMPTY];
    this.#place = 0;
    this.#cache = new WindowCache();
    this.#versions.clear();
    this.#next = 1;
    this.#show();
  }

  #set(state) {
    this.#history = [...this.#history.slice(0, this.#place + 1).slice(-200), state];
    this.#place = this.#history.length - 1;
    this.#show();
  }

  /** Replaces the present step: the same click, looked at more closely. */
  #replace(state) {
    this.#history = [...this.#history.slice(0, this.#place), state];
    this.#show();
  }

  /** Tells the page what is there, with the masks that it has not got yet. */
  #show() {
    const { objects, active, phrases } = this.#state;
    const size = scaled(this.#size, SHOWN);
    const masks = [];
    for (const each of objects) {
      if (this.#versions.get(each.id) === each.mask) continue;
      this.#versions.set(each.id, each.mask);
      masks.push({ id: each.id, ...size, data: this.#bytes(each.mask).data.slice() });
    }
    const rows = objects.map(({ id, colour, label, score, iou, readings, reading, refining }) => ({
      id, colour, label, score, iou, readings: readings?.length ?? 0, reading, refining,
    }));
    const points = objects.find(({ id }) => id === active)?.prompt?.points ?? [];
    const box = objects.find(({ id }) => id === active)?.prompt?.box ?? null;
    const scale = this.#size.width / this.#photo.frame.width;
    this.#post(
      {
        kind: "board",
        objects: rows,
        active,
        phrases,
        points: points.map(({ x, y, label }) => ({ x: x * scale, y: y * scale, label })),
        box: box?.map((side) => side * scale) ?? null,
        canUndo: this.#place > 0,
        canRedo: this.#place + 1 < this.#history.length,
        masks,
      },
      masks.map(({ data }) => data.buffer),
    );
  }

  #bytes(mask) {
    let known = this.#shown.get(mask);
    if (!known) {
      const { width, height } = scaled(this.#size, SHOWN);
      const data = threshold(mask.render(height, width));
      known = { data, area: data.reduce((a, b) => a + b, 0) };
      this.#shown.set(mask, known);
    }
    return known;
  }

  /** From pixels of the photo to those of the working size. */
  #point({ x, y }, foreground) {
    const { width, height } = this.#photo.frame;
    return { x: (x * width) / this.#size.width, y: (y * height) / this.#size.height, label: foreground ? 1 : 0 };
  }

  #need() {
    if (!this.#photo) throw new Error("Open a photo first.");
  }

  /** What a click means: which object it corrects, or null for a new one; prompt and earlier mask. */
  async #meaning(point) {
    const { objects, active } = this.#state;
    let target = objects.find(({ id }) => id === active) ?? null;
    if (!target) target = this.#under(point);
    if (!target && !point.label) {
      throw new Error("The first click must be on an object; then click what does not belong to it.");
    }
    if (!target) return { target, prompt: { ...emptyPrompt, points: [point] }, previous: null };
    const before = target.prompt ?? emptyPrompt;
    let { phrase } = before;
    if (target.phrase && !phrase) phrase = { embedding: await this.#model.embedPhrase(target.phrase) };
    return { target, prompt: { ...before, phrase, points: [...before.points, point] }, previous: target.mask };
  }

  /** The smallest mask of a phrase, or of everything, that a point lies in. */
  #under({ x, y }) {
    if (this.#state.isFresh) return null;
    const { width, height } = scaled(this.#size, SHOWN);
    const frame = this.#photo.frame;
    const row = Math.min(height - 1, Math.floor((y * height) / frame.height));
    const at = row * width + Math.min(width - 1, Math.floor((x * width) / frame.width));
    const found = this.#state.objects.filter((each) => !each.prompt && this.#bytes(each.mask).data[at]);
    found.sort((a, b) => this.#bytes(a.mask).area - this.#bytes(b.mask).area);
    return found[0] ?? null;
  }

  /** The mask that a click would make, from one look: what follows the pointer. */
  async hover({ x, y, foreground = true }) {
    this.#need();
    const { prompt, previous } = await this.#meaning(this.#point({ x, y }, foreground));
    const found = await predictOnce(this.#model, this.#photo, prompt, previous);
    const [{ mask: raw, iou }] = readingsOf(found, prompt, previous);
    // Specks would flicker under the pointer.
    const mask = raw.with({ grids: [cleaned(raw.grids[0], raw.size)] });
    const size = scaled(this.#size, HOVERED);
    return { ...size, data: threshold(mask.render(size.height, size.width)), iou };
  }

  /** A click: corrects the object at hand, or the one under it, or makes a new one. */
  async click({ x, y, foreground = true }, check) {
    this.#need();
    const { target, prompt, previous } = await this.#meaning(this.#point({ x, y }, foreground));
    if (!target) this.#cache.startObject();
    await this.#predict(prompt, previous, target, check);
    return {};
  }

  /** A box [x0, y0, x1, y1] means one new object. */
  async box({ box }, check) {
    this.#need();
    const scale = this.#photo.frame.width / this.#size.width;
    this.#cache.startObject();
    await this.#predict({ ...emptyPrompt, box: box.map((side) => side * scale) }, null, null, check);
    return {};
  }

  /** One look is shown at once; closer looks take its place. */
  async #predict(prompt, previous, target, check) {
    const before = this.#state;
    const id = target?.id ?? this.#next++;
    let isShown = false;
    const show = (found, refining) => {
      const readings = readingsOf(found, prompt, previous);
      const full = readings[0].mask.render();
      const next = {
        ...(target ?? { id, colour: id - 1, label: "", score: null }),
        prompt,
        readings,
        reading: 0,
        mask: readings[0].mask,
        iou: readings[0].iou,
        stability: stability(full),
        refining,
      };
      const objects = target
        ? before.objects.map((each) => (each.id === id ? next : each))
        : [...before.objects, next];
      const state = { ...before, objects, active: id, isFresh: false };
      if (isShown) this.#replace(state);
      else this.#set(state);
      isShown = true;
    };
    try {
      const found = await predict(this.#model, this.#photo, prompt, {
        cache: this.#cache,
        previous,
        check,
        onFirst: (first) => show(first, true),
      });
      show(found, false);
    } catch (error) {
      this.#settle(id);
      throw error;
    }
  }

  /** A job that was ended leaves its first look as it is. */
  #settle(id) {
    const { objects } = this.#state;
    if (!objects.some((each) => each.id === id && each.refining)) return;
    this.#replace({
      ...this.#state,
      objects: objects.map((each) => (each.id === id ? { ...each, refining: false } : each)),
    });
  }

  /** Another reading of a lone click: 0 to 2. */
  async reading({ id, reading }) {
    const state = this.#state;
    const objects = state.objects.map((each) => {
      const chosen = each.id === id ? each.readings?.[reading] : null;
      return chosen ? { ...each, reading, mask: chosen.mask, iou: chosen.iou } : each;
    });
    this.#set({ ...state, objects });
    return {};
  }

  /** Every instance of each phrase; those of an earlier answer to the same phrase are replaced. */
  async text({ phrases }, check) {
    this.#need();
    const before = this.#state;
    const answers = [];
    for (const phrase of phrases) {
      check();
      answers.push(await findPhrase(this.#model, this.#photo, phrase, check));
    }
    const kept = before.objects.filter((each) => !phrases.includes(each.phrase));
    const found = answers.flatMap(({ phrase, objects }) =>
      objects.map(({ mask, score, iou, stability: steady }) => {
        const id = this.#next++;
        return { id, colour: id - 1, label: phrase, phrase, mask, score, iou, stability: steady };
      }),
    );
    const told = answers.map(({ phrase, presence, reason, objects }) => ({ phrase, presence, reason, count: objects.length }));
    const others = before.phrases.filter(({ phrase }) => !phrases.includes(phrase));
    this.#set({ objects: [...kept, ...found], active: null, isFresh: false, phrases: [...others, ...told] });
    return { phrases: told };
  }

  /** Masks of everything, in place of what an earlier run found. */
  async everything({ perSide }, check) {
    this.#need();
    const before = this.#state;
    const found = await findEverything(this.#model, this.#photo, {
      perSide,
      check,
      onProgress: (share) => this.#post({ kind: "progress", share }),
    });
    const kept = before.objects.filter((each) => !each.isAutomatic);
    const objects = found.map(({ mask, iou, stability: steady }) => {
      const id = this.#next++;
      return { id, colour: id - 1, label: "", score: null, mask, iou, stability: steady, isAutomatic: true };
    });
    this.#set({ ...before, objects: [...kept, ...objects], active: null, isFresh: false });
    return { count: found.length };
  }

  async undo() {
    if (this.#place > 0) this.#place--;
    this.#show();
    return {};
  }

  async redo() {
    if (this.#place + 1 < this.#history.length) this.#place++;
    this.#show();
    return {};
  }

  async clear() {
    if (this.#state !== EMPTY) this.#set(EMPTY);
    return {};
  }

  /** Chooses the object that the next clicks correct; null for a new one. */
  async select({ id }) {
    const state = { ...this.#state, active: id, isFresh: id === null };
    this.#cache.startObject();
    this.#replace(state); // no step of its own: undo takes back masks
    return {};
  }

  async remove({ id }) {
    const { objects, active, ...rest } = this.#state;
    const left = objects.filter((each) => each.id !== id);
    this.#set({ ...rest, objects: left, active: active === id ? null : active });
    return {};
  }

  async rename({ id, label }) {
    const { objects, ...rest } = this.#state;
    this.#set({ ...rest, objects: objects.map((each) => (each.id === id ? { ...each, label } : each)) });
    return {};
  }

  /** Every mask at the photo's own size, with what COCO's JSON says of it. */
  async export({ withMasks = false }) {
    this.#need();
    const { width, height } = this.#size;
    const objects = [];
    for (const { id, colour, label, score, iou, stability: steady, mask } of this.#state.objects) {
      const bytes = threshold(mask.render(height, width));
      const { box, area } = maskBox(bytes, height, width);
      if (!area) continue;
      const counts = encodeRuns(maskRuns(bytes, height, width));
      objects.push({
        id, colour, label, score, iou, stability: steady, box, area, counts, bytes: withMasks ? bytes : null,
      });
    }
    return { width, height, objects };
  }
}
