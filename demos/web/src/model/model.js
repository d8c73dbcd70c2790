// An exported model (`textsam export`) run by onnxruntime-web: encode, decode, phrases.

import { Frame } from "./frame.js";
import { cutPhoto, resizePhoto, toInput } from "./pixels.js";
import { Tokenizer } from "./tokenizer.js";

/** Reads a file of the model, telling how many bytes have come. */
async function fetchBytes(url, onBytes) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} could not be read (${response.status})`);
  const parts = [];
  let total = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    total += value.length;
    onBytes(value.length);
  }
  const bytes = new Uint8Array(total);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** A photo after the encoder, with what is computed of it once: maps of phrases, inputs of decoders. */
class EncodedPhoto {
  constructor(data, frame, embedding, textFeatures) {
    Object.assign(this, { data, frame, embedding, textFeatures });
    this.maps = new Map();
    this.inputs = new Map();
  }
}

export class Model {
  #ort;
  #sessions = {};
  #last = Promise.resolve();
  #embeddings = new Map();

  /** `ort` is onnxruntime-web, `folder` the address of the exported files, ending in a slash. */
  constructor(ort, folder, settings, provider) {
    this.#ort = ort;
    this.folder = folder;
    this.provider = provider;
    this.settings = settings;
    this.name = settings.name;
    this.side = settings.image_size;
    this.maskSize = settings.mask_size;
    this.mean = settings.pixel_mean;
    this.std = settings.pixel_std;
    this.stretched = settings.frame === "stretched";
    this.text = settings.text?.settings;
    this.curves = settings.text?.calibration?.auto ?? null;
    this.mapSize = settings.text?.map_size;
    this.focus = settings.focus;
    // Phrases start from a map here; a text tower without a dense head makes none.
    this.hasText = Boolean(this.text && this.mapSize && "text.onnx" in settings.files);
  }

  static async readSettings(folder) {
    const response = await fetch(`${folder}textsam.json`, { cache: "no-cache" });
    if (!response.ok) throw new Error(`there is no model at ${folder} (${response.status})`);
    const settings = await response.json();
    if (settings.format !== "textsam-onnx") throw new Error("textsam.json is not an exported model");
    return settings;
  }

  /** The address of a file; its hash keeps caches from mixing two exports. */
  address(name) {
    const hash = this.settings.files[name]?.sha256 ?? "";
    return `${this.folder}${name}?v=${hash.slice(0, 12)}`;
  }

  /** Loads networks; `onBytes` is told of each part that arrives. */
  async load(names, onBytes = () => {}) {
    for (const name of names) {
      if (this.#sessions[name]) continue;
      const bytes = await fetchBytes(this.address(`${name}.onnx`), onBytes);
      this.#sessions[name] = await this.#ort.InferenceSession.create(bytes, {
        executionProviders: this.#providers(name),
        graphOptimizationLevel: "all",
      });
    }
  }

  async loadTokenizer(onBytes) {
    const bytes = await fetchBytes(this.address("tokenizer.json"), onBytes);
    this.tokenizer = new Tokenizer(JSON.parse(new TextDecoder().decode(bytes)));
  }

  /** Only the encoder is large enough to gain by a GPU; the others would wait for its answers. */
  #providers(name) {
    return this.provider === "webgpu" && name === "encoder" ? ["webgpu", "wasm"] : ["wasm"];
  }

  /** One run at a time: sessions share the threads. */
  #run(name, feeds, outputs) {
    const turn = this.#last.then(() => this.#sessions[name].run(feeds, outputs));
    this.#last = turn.catch(() => {});
    return turn;
  }

  #tensor(values, shape) {
    return new this.#ort.Tensor("float32", values, shape);
  }

  /** Encodes RGBA bytes of height x width. */
  async encode(data, height, width) {
    const frame = new Frame(height, width, this.side, this.stretched);
    const rgb = resizePhoto(data, height, width, frame.rows, frame.columns);
    const input = toInput(rgb, frame, this.mean, this.std);
    const output = await this.#run("encoder", {
      pixel_values: this.#tensor(input, [1, 3, this.side, this.side]),
    });
    return new EncodedPhoto(data, frame, output.image_embeddings, output.text_features);
  }

  /** Encodes a window of a photo as a photo of its own. */
  encodeWindow(photo, window) {
    const part = cutPhoto(photo.data, photo.frame.width, window);
    return this.encode(part, window.y1 - window.y0, window.x1 - window.x0);
  }

  /** Loads a decoder and, where the export has one, the graph of what it needs of a photo once. */
  async loadDecoder(name, onBytes) {
    await this.load([name, `${name}_photo`].filter((each) => `${each}.onnx` in this.settings.files), onBytes);
  }

  /** What a decoder reads of a photo, by name. */
  async #photoInputs(name, photo) {
    let known = photo.inputs.get(name);
    if (!known) {
      const own = { image_embeddings: photo.embedding };
      const once = this.#sessions[`${name}_photo`] ? await this.#run(`${name}_photo`, own) : {};
      known = this.#sessions[name].inputNames.includes("image_embeddings") ? { ...once, ...own } : once;
      photo.inputs.set(name, known);
    }
    return known;
  }

  /** Runs a decoder: four masks of the decoder's grid for each of P prompts, and their IoUs. */
  async #decode(name, photo, feeds) {
    const session = this.#sessions[name];
    // The smallest size: masks are resized here, where it is known which are looked at.
    if (session.inputNames.includes("orig_im_size")) feeds.orig_im_size = this.#tensor([1, 1], [2]);
    const shown = await this.#photoInputs(name, photo);
    const output = await this.#run(name, { ...shown, ...feeds }, ["low_res_masks", "iou_predictions"]);
    return { logits: output.low_res_masks.data, iou: output.iou_predictions.data };
  }

  /**
   * Decodes one prompt: points {x, y, label} in model pixels, `mask` logits of the decoder's grid,
   * a phrase { embedding }, whose map is the mask prompt where there is none and `withMap`.
   */
  async decode(photo, points, { mask = null, phrase = null, withMap = true } = {}) {
    const size = this.maskSize;
    const feeds = {
      point_coords: this.#tensor(Float32Array.from(points.flatMap(({ x, y }) => [x, y])), [1, points.length, 2]),
      point_labels: this.#tensor(Float32Array.from(points, ({ label }) => label), [1, points.length]),
      mask_input: this.#tensor(mask ?? new Float32Array(size * size), [1, 1, size, size]),
      has_mask_input: this.#tensor([mask ? 1 : 0], [1]),
    };
    let name = "decoder";
    if (phrase) {
      name = "decoder_text";
      const map = !mask && withMap ? await this.phraseMap(photo, phrase.embedding) : null;
      const side = this.mapSize;
      feeds.text_embedding = this.#tensor(phrase.embedding, [1, phrase.embedding.length]);
      feeds.text_map = this.#tensor(map?.logits ?? new Float32Array(side * side), [1, 1, side, side]);
      feeds.has_text_map = this.#tensor([map ? 1 : 0], [1]);
    }
    const { logits: all, iou } = await this.#decode(name, photo, feeds);
    const grids = [0, 1, 2, 3].map((k) => all.slice(k * size * size, (k + 1) * size * size));
    return { grids, iou: [...iou] };
  }

  /** Milliseconds of each of `runs` runs of the decoder at one point, on a random embedding. */
  async timeDecoder(runs) {
    const { decoder, decoder_photo: once } = this.#sessions;
    const [input] = (once ?? decoder).inputMetadata.filter(({ name }) => name === "image_embeddings");
    const values = new Float32Array(input.shape.reduce((a, b) => a * b)).map(() => Math.random() - 0.5);
    const photo = new EncodedPhoto(null, new Frame(1, 1, this.side), this.#tensor(values, input.shape), null);
    const times = [];
    for (let run = 0; run < runs; run++) {
      const start = performance.now();
      await this.decode(photo, [{ x: 0.4 * this.side, y: 0.4 * this.side, label: 1 }, { x: 0, y: 0, label: -1 }]);
      times.push(performance.now() - start);
    }
    return times;
  }

  /** The three readings of many lone points {x, y} in model pixels, as views of one array. */
  async decodePoints(photo, points) {
    const size = this.maskSize;
    const cells = size * size;
    const count = points.length;
    const feeds = {
      point_coords: this.#tensor(Float32Array.from(points.flatMap(({ x, y }) => [x, y, 0, 0])), [count, 2, 2]),
      point_labels: this.#tensor(Float32Array.from(points.flatMap(() => [1, -1])), [count, 2]),
      mask_input: this.#tensor(new Float32Array(count * cells), [count, 1, size, size]),
      has_mask_input: this.#tensor([0], [1]),
    };
    const { logits: all, iou } = await this.#decode("decoder", photo, feeds);
    return points.flatMap((point, p) =>
      [1, 2, 3].map((k) => ({
        point,
        logits: all.subarray((4 * p + k) * cells, (4 * p + k + 1) * cells),
        iou: iou[4 * p + k],
      })),
    );
  }

  /** The embedding of a phrase, as the pathway wants it. */
  async embedPhrase(phrase) {
    const key = this.tokenizer.isPlain ? this.tokenizer.plain(phrase) : phrase;
    const known = this.#embeddings.get(key);
    if (known) return known;
    const rows = this.tokenizer.encodePhrase(phrase);
    const ids = new this.#ort.Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0].length]);
    const output = await this.#run("text", { input_ids: ids });
    const embedding = output.text_embedding.data.slice();
    this.#embeddings.set(key, embedding);
    return embedding;
  }

  /** Log odds of a phrase at each place of the photo: { logits, size } of size x size. */
  async phraseMap(photo, embedding) {
    const known = photo.maps.get(embedding);
    if (known) return known;
    const output = await this.#run("text_map", {
      text_features: photo.textFeatures,
      text_embedding: this.#tensor(embedding, [1, embedding.length]),
    });
    const logits = output.text_map.data.slice();
    const map = { logits, size: this.mapSize };
    photo.maps.set(embedding, map);
    return map;
  }
}
