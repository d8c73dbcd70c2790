// Bundles src/ into dist/, with the WebAssembly of onnxruntime-web beside it: `npm run build`.

import { copyFile, cp, mkdir, readFile, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
const ort = join(here, "node_modules", "onnxruntime-web");
const { version } = JSON.parse(await readFile(join(ort, "package.json"), "utf8"));

await rm(dist, { recursive: true, force: true });
await mkdir(join(dist, "examples"), { recursive: true });
await build({
  absWorkingDir: here,
  entryPoints: ["src/page.js", "src/worker.js", "src/offline.js"],
  outdir: "dist",
  bundle: true,
  format: "esm",
  splitting: true,
  minify: true,
  target: ["chrome105", "firefox114", "safari16.4"],
  // The WebAssembly stays a file of its own, which the browser compiles while it loads.
  conditions: ["onnxruntime-web-use-extern-wasm"],
  define: { ORT_VERSION: JSON.stringify(version) },
  legalComments: "linked",
  chunkNames: "part-[hash]",
});
for (const name of ["index.html", "style.css", "icon.svg", "LICENSES.txt"]) {
  await copyFile(join(here, "src", name), join(dist, name));
}
for (const variant of ["", ".asyncify"]) {
  for (const suffix of ["mjs", "wasm"]) {
    const name = `ort-wasm-simd-threaded${variant}.${suffix}`;
    await copyFile(join(ort, "dist", name), join(dist, name));
  }
}
// In a checkout the photos lie at its root; in an installed package beside this folder.
for (const folder of [join(here, "..", "..", "examples"), join(here, "..", "examples")]) {
  if (!(await stat(folder).catch(() => null))) continue;
  for (const name of ["bus.jpg", "dog.jpg", "horses.jpg", "ATTRIBUTION.md"]) {
    await cp(join(folder, name), join(dist, "examples", name));
  }
  break;
}
console.log(`dist/ is built with onnxruntime-web ${version}`);
