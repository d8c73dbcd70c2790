// The list of things beside the photo: show, rename, choose, delete. Gradio listens to "act".

const list = element.querySelector(".ts-list");
const phrases = element.querySelector(".ts-presence");
const nothing = element.querySelector(".ts-nothing");
const count = element.querySelector(".ts-count");

function tell(what) {
  document.dispatchEvent(new CustomEvent("textsam-wait", { detail: "Working" }));
  trigger("act", what);
}

function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(properties.aria || {})) node.setAttribute(`aria-${name}`, value);
  node.append(...children);
  return node;
}

function figures(thing) {
  const parts = [];
  if (thing.score !== null) parts.push(`text ${thing.score.toFixed(2)}`);
  if (thing.iou !== null) parts.push(`IoU ${thing.iou.toFixed(2)}`);
  parts.push(`${(100 * thing.share).toFixed(thing.share < 0.1 ? 1 : 0)}%`);
  return parts.join(" · ");
}

function row(thing, active) {
  const name = make("input", {
    type: "text", value: thing.name, maxLength: 80, className: "ts-name",
    aria: { label: `Name of ${thing.name}` },
  });
  name.addEventListener("change", () => tell({ do: "rename", number: thing.number, name: name.value }));
  name.addEventListener("keydown", (event) => {
    if (event.key === "Enter") name.blur();
    event.stopPropagation();
  });
  const swatch = make("button", {
    type: "button", className: "ts-swatch", title: "Correct this one",
    aria: { label: `Correct ${thing.name}`, pressed: String(thing.number === active) },
  });
  swatch.style.setProperty("--ts-color", `rgb(${thing.color})`);
  swatch.addEventListener("click", () =>
    tell({ do: "select", number: thing.number === active ? null : thing.number })
  );
  const eye = make("button", {
    type: "button", className: "ts-eye", textContent: thing.shown ? "Hide" : "Show",
    aria: { label: `${thing.shown ? "Hide" : "Show"} ${thing.name}` },
  });
  eye.addEventListener("click", () => tell({ do: "show", number: thing.number, shown: !thing.shown }));
  const bin = make("button", {
    type: "button", className: "ts-bin", textContent: "×", title: "Delete",
    aria: { label: `Delete ${thing.name}` },
  });
  bin.addEventListener("click", () => tell({ do: "delete", number: thing.number }));
  const numbers = make("span", {
    className: "ts-figures", textContent: figures(thing),
    title: "How probably the phrase describes it, predicted IoU, share of the photo",
  });
  const item = make("li", { className: "ts-row" }, swatch, make("div", { className: "ts-words" }, name, numbers), eye, bin);
  item.classList.toggle("ts-active", thing.number === active);
  item.classList.toggle("ts-hidden", !thing.shown);
  for (const [kind, value] of [["mouseenter", thing.number], ["mouseleave", null]]) {
    item.addEventListener(kind, () =>
      document.dispatchEvent(new CustomEvent("textsam-hover", { detail: value }))
    );
  }
  return item;
}

function receive() {
  const scene = props.value;
  if (!scene || typeof scene !== "object") return;
  list.replaceChildren(...scene.things.map((thing) => row(thing, scene.active)));
  phrases.replaceChildren(
    ...scene.presence.map((told) => {
      const chance = told.chance === null ? "" : ` ${Math.round(100 * told.chance)}%`;
      const words = `${told.phrase}: ${told.count || "none"}`;
      const chip = make("li", { title: "How probably it is in the photo at all" }, words, make("small", {}, chance));
      chip.classList.toggle("ts-absent", !told.count);
      return chip;
    })
  );
  nothing.hidden = scene.things.length > 0 || scene.presence.length > 0;
  count.textContent = scene.things.length ? String(scene.things.length) : "";
}

watch("value", receive);
receive();
