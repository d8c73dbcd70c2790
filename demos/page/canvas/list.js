// The list of objects beside the photo: show, rename, choose, delete. Gradio looks for the name of
// the event in quotes: "act".

const list = element.querySelector(".ts-list");
const phrases = element.querySelector(".ts-presence");
const nothing = element.querySelector(".ts-nothing");
const count = element.querySelector(".ts-count");

function send(what) {
  document.dispatchEvent(new CustomEvent("textsam-wait", { detail: "Working" }));
  trigger("act", what);
}

function make(tag, { aria = {}, on = {}, ...properties }, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(aria)) node.setAttribute(`aria-${name}`, value);
  for (const [name, handler] of Object.entries(on)) node.addEventListener(name, handler);
  node.append(...children);
  return node;
}

function figures(item) {
  const parts = [];
  if (item.score !== null) parts.push(`text ${item.score.toFixed(2)}`);
  if (item.iou !== null) parts.push(`IoU ${item.iou.toFixed(2)}`);
  parts.push(`${(100 * item.share).toFixed(item.share < 0.1 ? 1 : 0)}%`);
  return parts.join(" · ");
}

function row(item, active) {
  const { number } = item;
  const name = make("input", {
    type: "text", value: item.name, maxLength: 80, className: "ts-name",
    aria: { label: `Name of ${item.name}` },
    on: {
      change: () => send({ do: "rename", number, name: name.value }),
      keydown: (event) => {
        if (event.key === "Enter") name.blur();
        event.stopPropagation();
      },
    },
  });
  const swatch = make("button", {
    type: "button", className: "ts-swatch", title: "Choose this object; clicks then correct it",
    aria: { label: `Correct ${item.name}`, pressed: String(number === active) },
    on: { click: () => send({ do: "select", number: number === active ? null : number }) },
  });
  swatch.style.setProperty("--ts-color", `rgb(${item.color})`);
  const eye = make("button", {
    type: "button", className: "ts-eye", textContent: item.shown ? "Hide" : "Show",
    aria: { label: `${item.shown ? "Hide" : "Show"} ${item.name}` },
    on: { click: () => send({ do: "show", number, shown: !item.shown }) },
  });
  const bin = make("button", {
    type: "button", className: "ts-bin", textContent: "×", title: "Delete",
    aria: { label: `Delete ${item.name}` }, on: { click: () => send({ do: "delete", number }) },
  });
  const numbers = make("span", {
    className: "ts-figures", textContent: figures(item),
    title: "Probability of the phrase, predicted IoU of the mask, share of the photo",
  });
  const hover = (value) => document.dispatchEvent(new CustomEvent("textsam-hover", { detail: value }));
  const on = { mouseenter: () => hover(number), mouseleave: () => hover(null) };
  const line = make("li", { className: "ts-row", on }, swatch, make("div", { className: "ts-words" }, name, numbers), eye, bin);
  line.classList.toggle("ts-active", number === active);
  line.classList.toggle("ts-hidden", !item.shown);
  return line;
}

function receive() {
  const scene = props.value;
  if (!scene || typeof scene !== "object") return;
  list.replaceChildren(...scene.objects.map((item) => row(item, scene.active)));
  phrases.replaceChildren(
    ...scene.presence.map((entry) => {
      const probability = entry.probability === null ? "" : ` · ${Math.round(100 * entry.probability)}%`;
      const words = `${entry.phrase}: ${entry.count || "none"}`;
      const chip = make("li", { title: "Probability that it is in the photo" }, words, make("small", {}, probability));
      chip.classList.toggle("ts-absent", !entry.count);
      return chip;
    })
  );
  nothing.hidden = scene.objects.length > 0 || scene.presence.length > 0;
  count.textContent = scene.objects.length ? String(scene.objects.length) : "";
}

watch("value", receive);
receive();
