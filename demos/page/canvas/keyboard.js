// Everything works without a mouse: letters choose tools, arrow keys move a crosshair over the photo
// and Enter clicks there.

let spaceDown = false;

const keys = {
  a: () => chooseTool("add"),
  r: () => chooseTool("remove"),
  b: () => chooseTool("box"),
  m: () => chooseTool("move"),
  n: () => act({ do: "start_new" }),
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

function isTyping(target) {
  return Boolean(target.closest("input, textarea, select, dialog, [contenteditable]"));
}

function pressed(event) {
  if (!scene || !scene.photo || !stage.offsetParent || isTyping(event.target)) return;
  const { key } = event;
  const onStage = event.target === stage;
  if (event.ctrlKey || event.metaKey) {
    if (key.toLowerCase() !== "z" && key.toLowerCase() !== "y") return;
    act({ do: key.toLowerCase() === "y" || event.shiftKey ? "redo" : "undo" });
  } else if (onStage && key === " ") {
    spaceDown = true;
  } else if (onStage && arrows[key]) {
    moveCursor(arrows[key], (event.shiftKey ? 1 : 10) / place.scale);
  } else if (onStage && key === "Enter" && cursor) {
    clickAt(cursor, event.shiftKey || tool === "remove");
  } else if (key === "Escape") {
    cursor = null;
    draft = null;
    press = null;
    act({ do: "select", number: null });
  } else if ("123".includes(key) && activeObject()?.readings > 1) {
    act({ do: "reading", index: Number(key) - 1 });
  } else if (!event.altKey && (keys[key] || keys[key.toLowerCase()])) {
    (keys[key] || keys[key.toLowerCase()])();
  } else {
    return;
  }
  event.preventDefault();
}

function moveCursor([dx, dy], step) {
  const { width, height } = scene.photo;
  const [x, y] = cursor || [width / 2, height / 2];
  cursor = [
    Math.min(Math.max(x + dx * step, 0), width - 1),
    Math.min(Math.max(y + dy * step, 0), height - 1),
  ];
  draw();
}

document.addEventListener("keydown", pressed);
stage.addEventListener("keyup", (event) => {
  if (event.key === " ") spaceDown = false;
});
