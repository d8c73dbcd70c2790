// Modules of the page against what Python says: run by test_modules.py, which writes the cases.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

const source = new URL("../../../demos/web/src/model/", import.meta.url);
const load = (name) => import(new URL(name, source));
const cases = JSON.parse(await readFile(process.env.CASES, "utf8"));

test("phrases become the same tokens", async () => {
  const { Tokenizer } = await load("tokenizer.js");
  const tokenizer = new Tokenizer(cases.table);
  for (const { phrase, plain, ids } of cases.phrases) {
    assert.equal(tokenizer.plain(phrase), plain, phrase);
    assert.deepEqual(tokenizer.encodePhrase(phrase)[0], ids, phrase);
  }
});

test("colours are split off", async () => {
  const { splitColour } = await load("tokenizer.js");
  for (const { phrase, colour } of cases.colours) {
    assert.deepEqual(splitColour(phrase, cases.table.aliases), colour, phrase);
  }
});

test("a line holds phrases between commas", async () => {
  const { splitPhrases } = await load("tokenizer.js");
  assert.deepEqual(splitPhrases(" dog,  red   car;dog, , !\nwheel"), ["dog", "red car", "wheel"]);
});

test("masks become pycocotools' codes, boxes and areas", async () => {
  const { encodeRuns, maskBox, maskRuns } = await load("rle.js");
  for (const { mask, size, counts, box, area } of cases.masks) {
    const bytes = Uint8Array.from(mask);
    assert.equal(encodeRuns(maskRuns(bytes, ...size)), counts);
    assert.deepEqual(maskBox(bytes, ...size), { box, area });
  }
});

test("photos are resized as by Pillow", async () => {
  const { resizePhoto } = await load("pixels.js");
  for (const { photo, size, to, resized } of cases.photos) {
    const found = resizePhoto(Uint8Array.from(photo), ...size, ...to);
    assert.deepEqual([...found], resized);
  }
});

test("grids are resized as by PyTorch", async () => {
  const { resizeGrid, shrinkGrid, Frame } = await load("frame.js");
  for (const { grid, size, to, bilinear, area } of cases.grids) {
    const pairs = [[resizeGrid(Float32Array.from(grid), size[1], size, to), bilinear]];
    if (area) pairs.push([shrinkGrid(Float32Array.from(grid), size, to), area]);
    for (const [found, wanted] of pairs) {
      wanted.forEach((value, at) => assert.ok(Math.abs(found[at] - value) < 1e-4));
    }
  }
  for (const { size, resized, covered } of cases.frames) {
    const frame = new Frame(...size, 512);
    assert.deepEqual([frame.rows, frame.columns], resized);
    assert.deepEqual(frame.covered(128), covered);
  }
});

test("regions have the same labels and depths", async () => {
  const { components, depthInside } = await load("masks.js");
  for (const { mask, size, labels, depth } of cases.regions) {
    const bytes = Uint8Array.from(mask);
    assert.deepEqual([...components(bytes, size, size).labels], labels);
    assert.deepEqual([...depthInside(bytes, size)], depth);
  }
});

test("colours of masks match", async () => {
  const { colourMatch } = await load("colours.js");
  for (const { photo, mask, size, box, matches } of cases.colouring) {
    for (const [colour, wanted] of Object.entries(matches)) {
      const found = colourMatch(Uint8Array.from(photo), Uint8Array.from(mask), size[1], box, colour);
      assert.ok(Math.abs(found - wanted) < 1e-6, `${colour}: ${found}, wanted ${wanted}`);
    }
  }
});
