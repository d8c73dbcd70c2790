// Keys, while the photo has the focus. Arrows move a crosshair and Enter clicks, so that everything
// can be done without a mouse.

let spaceDown = false;

const keys = {
  a: () => chooseTool("add"),
  r: () => chooseTool("remove"),
  b: () => chooseTool("box"),
  m: () => chooseTool("move"),
  n: () => act({ do: "new" }),
  z: () => act({ do: "undo" }),
  y: () => act({ do: "redo" }),
  h: () => scene.active !== null && act({ do: "show", number: scene.active, shown: false }),
  Delete: () => scene.active !== null && act({ do: "delete", number: scene.active }),
  Backspace: () => scene.active !== null && act({ do: "delete", number: scene.active }),
  "+": () => zoomAt(1.25, stage.clientWidth / 2, stage.clientHeight / 2),
  "=": () => zoomAt(1.25, stage.clientWidth / 2, stage.clientHeight / 2),
  "-": () => zoomAt(0.8, stage.clientWidth / 2, stage.clientHeight / 2),
  0: () => fitPhoto(),
  "?": () => help.showModal(),
};

const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

stage.addEventListener("keydown", (event) => {
  if (!scene || !scene.photo || event.target !== stage) return;
  const { key } = event;
  if (key === " ") {
    spaceDown = true;
    event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey) {
    if (key.toLowerCase() !== "z" && key.toLowerCase() !== "y") return;
    act({ do: key.toLowerCase() === "y" || event.shiftKey ? "redo" : "undo" });
  } else if (arrows[key]) {
    const step = (event.shiftKey ? 1 : 10) / place.scale;
    const [x, y] = cursor || [scene.photo.width / 2, scene.photo.height / 2];
    cursor = [
      Math.min(Math.max(x + arrows[key][0] * step, 0), scene.photo.width - 1),
      Math.min(Math.max(y + arrows[key][1] * step, 0), scene.photo.height - 1),
    ];
    draw();
  } else if (key === "Enter" && cursor) {
    clickAt(cursor, event.shiftKey || tool === "remove");
  } else if (key === "Escape") {
    cursor = null;
    draft = null;
    press = null;
    act({ do: "select", number: null });
  } else if ("123".includes(key) && activeReadings() > 1) {
    act({ do: "reading", reading: Number(key) - 1 });
  } else if (keys[key] || keys[key.toLowerCase()]) {
    (keys[key] || keys[key.toLowerCase()])();
  } else {
    return;
  }
  event.preventDefault();
});

stage.addEventListener("keyup", (event) => {
  if (event.key === " ") spaceDown = false;
});

function activeReadings() {
  const active = scene.things.find((thing) => thing.number === scene.active);
  return active ? active.readings : 0;
}
