// The model and the masks live here, off the page's thread: messages in, masks out.

import { Board } from "./model/board.js";
import { Model } from "./model/model.js";

const MAX_SIDE = 2560; // larger photos are worked on at this size; what is saved has their own

// What is asked for anew ends what was asked before; saving or renaming waits for it.
const CHANGES = new Set(["open", "click", "box", "text", "everything", "undo", "redo", "clear", "remove"]);

let model;
let board;
let job = 0;
let queue = Promise.resolve();

class Cancelled extends Error {}

const post = (message, transfer = []) => self.postMessage(message, transfer);

/** onnxruntime-web with WebGPU where there is one, which costs 13 MB more; else WASM alone. */
async function startRuntime({ gpu, threads }) {
  let provider = "wasm";
  if (gpu && self.navigator.gpu && (await self.navigator.gpu.requestAdapter().catch(() => null))) {
    provider = "webgpu";
  }
  const ort =
    provider === "webgpu" ? await import("onnxruntime-web/webgpu") : await import("onnxruntime-web/wasm");
  const variant = provider === "webgpu" ? ".asyncify" : "";
  const file = new URL(`ort-wasm-simd-threaded${variant}`, self.location.href).href;
  ort.env.wasm.wasmPaths = { mjs: `${file}.mjs?v=${ORT_VERSION}`, wasm: `${file}.wasm?v=${ORT_VERSION}` };
  const most = self.crossOriginIsolated ? Math.min(4, self.navigator.hardwareConcurrency || 1) : 1;
  ort.env.wasm.numThreads = Math.max(1, Math.min(most, threads ?? most));
  return { ort, provider, threads: ort.env.wasm.numThreads };
}

async function load({ folder, gpu = true, threads }) {
  const settings = await Model.readSettings(folder);
  const total = Object.values(settings.files).reduce((sum, { bytes }) => sum + bytes, 0);
  let loaded = 0;
  const onBytes = (count) => {
    loaded += count;
    post({ kind: "loading", loaded, total });
  };
  const runtime = await startRuntime({ gpu, threads });
  model = new Model(runtime.ort, folder, settings, runtime.provider);
  board = new Board(model, post);
  await model.load(["encoder"], onBytes);
  await model.loadDecoder("decoder", onBytes);
  post({ kind: "ready", name: model.name, provider: runtime.provider, threads: runtime.threads, hasText: model.hasText });
  if (!model.hasText) return {};
  await model.loadTokenizer(onBytes);
  await model.loadDecoder("decoder_text", onBytes);
  await model.load(["text_map", "text"], onBytes);
  post({ kind: "text-ready" });
  return {};
}

/** For benchmarks: times of the decoder of any exported model. */
async function time({ folder, runs, threads }) {
  const runtime = await startRuntime({ gpu: false, threads });
  const timed = new Model(runtime.ort, folder, await Model.readSettings(folder), "wasm");
  await timed.loadDecoder("decoder");
  return { times: await timed.timeDecoder(runs), threads: runtime.threads };
}

/** The photo's pixels at a working size, upright, transparent places white. */
async function open({ blob }) {
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, width, height);
  const { data } = pen.getImageData(0, 0, width, height);
  const result = { width: bitmap.width, height: bitmap.height };
  bitmap.close();
  const started = performance.now();
  await board.open(data, { width, height }, result);
  return { ...result, encodeMs: performance.now() - started };
}

async function answer({ ticket, kind, ...rest }) {
  const own = ++job;
  const check = () => {
    if (own !== job) throw new Cancelled();
  };
  try {
    if (kind === "load") return post({ ticket, kind: "done", result: await load(rest) });
    if (kind === "time") return post({ ticket, kind: "done", result: await time(rest) });
    if (kind === "open") return post({ ticket, kind: "done", result: await open(rest) });
    const result = await board[kind](rest, check);
    post({ ticket, kind: "done", result });
  } catch (error) {
    if (error instanceof Cancelled) return post({ ticket, kind: "done", result: { cancelled: true } });
    console.warn(error);
    post({ ticket, kind: "failed", message: error.message });
  }
}

self.onmessage = ({ data }) => {
  // A preview neither waits for a job nor ends it.
  if (data.kind === "hover") {
    board
      .hover(data)
      .then((result) => post({ ticket: data.ticket, kind: "done", result }, [result.data.buffer]))
      .catch((error) => post({ ticket: data.ticket, kind: "failed", message: error.message }));
    return;
  }
  if (CHANGES.has(data.kind)) job++; // ends the job at work, which checks between two looks
  queue = queue.then(() => answer(data));
};
