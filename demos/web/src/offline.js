// Service worker: the page opens without a network, and hosts that send no headers get threads.
// Files whose address has a version (?v=) never change; others are asked of the network first.

const CACHE = "textsam";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

/** The headers under which browsers allow memory that threads share. */
function isolated(response) {
  if (response.type === "opaque" || response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

async function keep(request, response) {
  const cache = await caches.open(CACHE);
  const { pathname } = new URL(request.url);
  // One version of each file: the last export takes the place of the one before.
  for (const old of await cache.keys()) {
    if (old.url !== request.url && new URL(old.url).pathname === pathname) await cache.delete(old);
  }
  await cache.put(request, response);
}

async function answer(event) {
  const { request } = event;
  const url = new URL(request.url);
  const known = await caches.match(request);
  if (known && url.searchParams.has("v")) return isolated(known);
  try {
    const response = await fetch(request);
    if (response.ok) event.waitUntil(keep(request, response.clone()));
    return isolated(response);
  } catch (error) {
    const stored = known ?? (await caches.match(request, { ignoreSearch: true }));
    if (stored) return isolated(stored);
    throw error;
  }
}

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method === "GET" && url.origin === self.location.origin) event.respondWith(answer(event));
});

/** The page tells what it had loaded before this worker was there. */
self.addEventListener("message", (event) => {
  event.waitUntil(
    caches.open(CACHE).then(async (cache) => {
      for (const url of event.data.urls) {
        if (!(await cache.match(url))) await cache.add(url).catch(() => {});
      }
      event.ports[0]?.postMessage("kept");
    }),
  );
});
