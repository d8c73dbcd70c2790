// Messages to the worker and back.

export class Client {
  #worker = null;
  #onMessage;
  #waiting = new Map();
  #next = 1;

  constructor(onMessage) {
    this.#onMessage = onMessage;
  }

  start() {
    this.#worker = new Worker(new URL("worker.js", document.baseURI), { type: "module" });
    this.#worker.onmessage = ({ data }) => {
      if (data.kind !== "done" && data.kind !== "failed") return this.#onMessage(data);
      const { resolve, reject } = this.#waiting.get(data.ticket);
      this.#waiting.delete(data.ticket);
      if (data.kind === "done") resolve(data.result);
      else reject(new Error(data.message));
    };
    this.#worker.onerror = (event) => {
      const error = new Error(event.message || "the page's worker could not be started");
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    };
  }

  ask(kind, rest = {}) {
    const ticket = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(ticket, { resolve, reject });
      this.#worker.postMessage({ ...rest, kind, ticket });
    });
  }
}
