// `strategy="auto"`: the map of a phrase finds, points in it separate the instances. A port of
// textsam/inference/strategies/map_points.py, coloured.py and values/judge.py for phrases alone.

import { colourMatch } from "./colours.js";
import { resizeGrid, sigmoid } from "./frame.js";
import { MaskLogits, stability, threshold } from "./masks.js";
import { findRegions, RegionDecoder, tidied } from "./regions.js";
import { maskBox } from "./rle.js";
import { plainPhrase, splitColour } from "./tokenizer.js";

const PEAK_CELLS = 8;
const MAX_LOG_ODDS = 30;
// Without a calibration the map's own probabilities count.
const DEFAULT_CURVES = {
  presence: { weights: { peak: 1 }, bias: 0 },
  score: { weights: { map: 1 }, bias: 0 },
  min_presence: 0.6,
  min_score: 0.5,
};

function probability(curve, evidence) {
  const terms = Object.entries(curve.weights).map(([name, weight]) => weight * evidence[name]);
  const total = terms.reduce((a, b) => a + b, curve.bias);
  return sigmoid(Math.max(-60, Math.min(60, total)));
}

const logit = (p) => {
  const chance = Math.min(Math.max(p, 1e-6), 1 - 1e-6);
  return Math.log(chance / (1 - chance));
};

/** The levels and curves of a phrase, which may have levels of its own. */
function curvesOf(model, phrase) {
  const curves = model.curves ?? DEFAULT_CURVES;
  const own = curves.phrases ?? {};
  const keys = [plainPhrase(phrase), model.tokenizer.plain(phrase)].map((key) => key.toLowerCase());
  const key = keys.find((each) => Object.hasOwn(own, each));
  return key === undefined ? curves : { ...curves, ...own[key] };
}

/** Soft maximum of a map's best cells. */
function peakOf(map, size, [rows, columns]) {
  const inside = [];
  for (let y = 0; y < rows; y++) inside.push(...map.subarray(y * size, y * size + columns));
  const best = inside.sort((a, b) => b - a).slice(0, PEAK_CELLS);
  const mean = best.reduce((sum, value) => sum + Math.exp(value - best[0]), 0) / best.length;
  return Math.max(-MAX_LOG_ODDS, Math.min(MAX_LOG_ODDS, best[0] + Math.log(mean)));
}

/** All instances of a phrase: { phrase, presence, reason, objects }; `reason` if there are none. */
export async function findPhrase(model, photo, phrase, check = () => {}) {
  const colour = model.text.measure_colours ? splitColour(phrase, model.tokenizer.aliases) : null;
  const answer = await answerName(model, photo, colour?.name ?? phrase, check);
  if (colour && answer.candidates.length) byColour(photo, answer, colour.colour);
  const kept = answer.candidates.filter(({ gate }) => !gate).sort((a, b) => b.score - a.score);
  const reason = kept.length ? "" : answer.reason || "no mask fits well";
  return { phrase, presence: answer.presence, reason, objects: kept };
}

async function answerName(model, photo, name, check) {
  const embedding = await model.embedPhrase(name);
  const map = await model.phraseMap(photo, embedding); // log odds, n x n
  const curves = curvesOf(model, name);
  const covered = photo.frame.covered(map.size);
  const presence = probability(curves.presence, { peak: peakOf(map.logits, map.size, covered) });
  if (presence < curves.min_presence) return { presence, candidates: [], reason: "probably not in the photo" };
  const size = model.maskSize;
  const logits = resizeGrid(map.logits, map.size, [map.size, map.size], [size, size]);
  const inner = photo.frame.covered(size);
  const inside = new Float32Array(size * size);
  for (let y = 0; y < inner[0]; y++) {
    for (let x = 0; x < inner[1]; x++) inside[y * size + x] = sigmoid(logits[y * size + x]);
  }
  const regions = findRegions(inside, size, model.text.threshold, model.text);
  if (!regions.length) return { presence, candidates: [], reason: "no place looks like it" };
  const decoder = new RegionDecoder({
    logits,
    size,
    side: model.side,
    covered: inner,
    settings: model.text,
    decode: async ([x, y], mask) => {
      check();
      const points = [{ x, y, label: 1 }, { x: 0, y: 0, label: -1 }];
      const output = await model.decode(photo, points, { mask, phrase: { embedding }, withMap: false });
      return { logits: output.grids[0], iou: output.iou[0] };
    },
  });
  const proposals = await decoder.proposals(regions);
  return { presence, candidates: judged(model, photo, proposals, curves), levels: curves };
}

/** The proposals as candidates, each with the gate that drops it. */
function judged(model, photo, proposals, curves) {
  const { text: settings, maskSize: size } = model;
  const taken = new Uint8Array(size * size);
  const candidates = [];
  for (const item of proposals) {
    let repeats = item.rejected;
    if (!repeats) {
      let [area, covered] = [0, 0];
      item.logits.forEach((value, at) => {
        if (value <= 0) return;
        area++;
        covered += taken[at];
      });
      repeats = covered / Math.max(1, area) > settings.overlap;
    }
    if (repeats) continue;
    item.logits.forEach((value, at) => value > 0 && (taken[at] = 1));
    const score = probability(curves.score, { map: logit(item.mean), peak: logit(item.best) });
    const logits = tidied(item.logits, item.region.cells, size, settings.max_hole_ratio);
    const mask = new MaskLogits(photo.frame, size, [logits]);
    const full = mask.render();
    const { box, area } = maskBox(threshold(full), photo.frame.height, photo.frame.width);
    if (!area) continue;
    let gate = null;
    if (score < curves.min_score) gate = "score";
    else if (item.quality < settings.min_quality) gate = "quality";
    candidates.push({ mask, score, iou: item.iou, stability: stability(full), box, gate });
  }
  return candidates;
}

/** Drops the masks of another colour; a red car is not in a photo whose cars are white. */
function byColour(photo, answer, colour) {
  const { width } = photo.frame;
  let best = 0;
  let some = false;
  for (const item of answer.candidates) {
    const match = colourMatch(photo.data, threshold(item.mask.render()), width, item.box, colour);
    if (!item.gate) {
      best = Math.max(best, match);
      some = true;
    }
    if (match < 1) item.gate = "colour";
  }
  if (!some) return;
  const presence = answer.presence * best ** 3;
  if (presence < answer.levels.min_presence) {
    for (const item of answer.candidates) item.gate ??= "colour";
  }
  if (answer.candidates.every(({ gate }) => gate)) answer.reason = `there, but not ${colour}`;
  answer.presence = presence;
}
