// Masks as pictures. The colours are those of textsam/pictures/draw.py, which are told apart by
// people who see colours differently.

const PALETTE = [
  [0x2f, 0x7d, 0xff], [0xff, 0x5a, 0x1f], [0x17, 0xe3, 0xa5], [0xff, 0x7a, 0xd1],
  [0xff, 0xd9, 0x2e], [0x7b, 0x2f, 0xbe], [0x8c, 0x3b, 0x12], [0xb8, 0xf2, 0xff],
];

export const colourOf = (number) => PALETTE[number % PALETTE.length];
export const cssColour = (number) => `rgb(${colourOf(number).join(" ")})`;

/** The mask in a colour: a tint inside, a line along its edge, a white halo around it. */
export function maskPixels({ data, width, height }, [r, g, b], { alpha = 0.42, line = 2, halo = 1 } = {}) {
  const picture = new ImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const word = (red, green, blue, a) => ((a << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  const inside = word(r, g, b, Math.round(255 * alpha));
  const edge = word(r, g, b, 255);
  const white = word(255, 255, 255, 230);
  for (let at = 0; at < data.length; at++) if (data[at]) pixels[at] = inside;
  const reach = line + halo;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!data[at]) continue;
      const isRim =
        (x > 0 && !data[at - 1]) || (x + 1 < width && !data[at + 1]) ||
        (y > 0 && !data[at - width]) || (y + 1 < height && !data[at + width]);
      if (!isRim) continue;
      for (let v = Math.max(0, y - reach); v <= Math.min(height - 1, y + reach); v++) {
        for (let u = Math.max(0, x - reach); u <= Math.min(width - 1, x + reach); u++) {
          const to = v * width + u;
          const far = Math.max(Math.abs(u - x), Math.abs(v - y));
          if (data[to] ? far < line : false) pixels[to] = edge;
          else if (!data[to] && far <= halo && halo) pixels[to] = white;
        }
      }
    }
  }
  return picture;
}

/** The same on a canvas of its own. */
export function paintMask(mask, colour, options) {
  const canvas = document.createElement("canvas");
  canvas.width = mask.width;
  canvas.height = mask.height;
  canvas.getContext("2d").putImageData(maskPixels(mask, colour, options), 0, 0);
  return canvas;
}

/** The photo with masks and their names at full size. */
export function paintOverlay(photo, objects, { width, height }) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  pen.drawImage(photo, 0, 0, width, height);
  const side = (width + height) / 2;
  const line = Math.max(2, Math.round(side / 230));
  for (const { bytes, colour } of objects) {
    const mask = paintMask({ data: bytes, width, height }, colourOf(colour), { line, halo: Math.max(1, Math.round(side / 800)) });
    pen.drawImage(mask, 0, 0);
  }
  const size = Math.max(12, Math.round(side / 38));
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  for (const { label, box, colour } of objects) {
    if (!label) continue;
    const wide = pen.measureText(label).width + size;
    const x = Math.min(Math.max(0, box[0]), Math.max(0, width - wide));
    const y = Math.max(0, box[1] - size * 1.6);
    const [r, g, b] = colourOf(colour);
    pen.fillStyle = cssColour(colour);
    pen.beginPath();
    pen.roundRect(x, y, wide, size * 1.5, size / 3);
    pen.fill();
    pen.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#111" : "#fff";
    pen.fillText(label, x + size / 2, y + size * 0.77);
  }
  return canvas;
}
