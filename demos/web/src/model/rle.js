// COCO's compressed run-length code, as rleToString of pycocotools writes it.

/** Run lengths of a mask (height x width bytes, 0 or 1) in column order, zeros first. */
export function maskRuns(mask, height, width) {
  const runs = [];
  let last = 0;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      if (mask[at] !== last) {
        runs.push(length);
        length = 0;
        last = mask[at];
      }
      length++;
    }
  }
  runs.push(length);
  return runs;
}

/** Five bits a character, low bits first; from the fourth run on differences to two runs before. */
export function encodeRuns(runs) {
  let code = "";
  runs.forEach((run, i) => {
    let rest = i > 2 ? run - runs[i - 2] : run;
    for (let more = true; more; ) {
      let bits = rest & 0x1f;
      rest >>= 5;
      more = bits & 0x10 ? rest !== -1 : rest !== 0;
      if (more) bits |= 0x20;
      code += String.fromCharCode(bits + 48);
    }
  });
  return code;
}

/** The smallest box of a mask as half-open [x0, y0, x1, y1], and its area; zeros if it is empty. */
export function maskBox(mask, height, width) {
  let [x0, y0, x1, y1, area] = [width, height, 0, 0, 0];
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!mask[at]) continue;
      area++;
      if (x < x0) x0 = x;
      if (x >= x1) x1 = x + 1;
      if (y < y0) y0 = y;
      y1 = y + 1;
    }
  }
  return area ? { box: [x0, y0, x1, y1], area } : { box: [0, 0, 0, 0], area: 0 };
}
