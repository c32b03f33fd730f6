// Keyboard: the figure is one stop of the Tab key, arrows move in it. Mouse: zoom and pan.

let current = boxes[0];

function rove(box, isFocused = true) {
  current.setAttribute("tabindex", "-1");
  current = box;
  current.setAttribute("tabindex", "0");
  if (isFocused) {
    current.focus({ preventScroll: true });
    reveal(current.dataset.key);
  }
}

const middle = (box) => box.getBBox().y + box.getBBox().height / 2;
const columnOf = (box) => (box.dataset.key === "head" ? -1 : Number(box.dataset.key.split("-")[0]));

/** The box that an arrow key leads to. */
function neighbour(box, key) {
  const place = boxes.indexOf(box);
  if (key === "ArrowUp") return boxes[place - 1];
  if (key === "ArrowDown") return boxes[place + 1];
  const column = columnOf(box) + (key === "ArrowRight" ? 1 : -1);
  const there = boxes.filter((other) => columnOf(other) === column && column >= 0);
  const distance = (other) => Math.abs(middle(other) - middle(box));
  return there.sort((a, b) => distance(a) - distance(b))[0];
}

figure.addEventListener("keydown", (event) => {
  const shape = event.target.closest("[data-key]");
  if (!shape) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    choose(shape.dataset.key);
  } else if (event.key.startsWith("Arrow") && shape.classList.contains("box")) {
    event.preventDefault();
    const next = neighbour(shape, event.key);
    if (next) rove(next);
  }
});
if (current) current.setAttribute("tabindex", "0");

const size = { width: figure.viewBox.baseVal.width, height: figure.viewBox.baseVal.height };
const fitting = () => Math.min(1.25, (stage.clientWidth - 2) / size.width);
const LEGIBLE = 0.6;
let zoom = 1;
let wasDragged = false;

/** Change the scale; what lies at (x, y) of the window stays there. */
function scale(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const next = Math.min(4, Math.max(0.05, factor));
  const ratio = next / zoom;
  const [left, top] = [stage.scrollLeft, stage.scrollTop];
  zoom = next;
  figure.style.maxWidth = "none";
  figure.style.width = `${size.width * zoom}px`;
  stage.scrollLeft = (left + x) * ratio - x;
  stage.scrollTop = (top + y) * ratio - y;
}

const zooms = {
  in: () => scale(zoom * 1.25),
  out: () => scale(zoom / 1.25),
  fit: () => scale(fitting()),
  whole: () => scale(Math.min(fitting(), (stage.clientHeight - 2) / size.height)),
};
document.querySelectorAll("[data-zoom]").forEach((element) => {
  element.addEventListener("click", zooms[element.dataset.zoom]);
});

stage.addEventListener(
  "wheel",
  (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const frame = stage.getBoundingClientRect();
    scale(zoom * Math.exp(-event.deltaY / 400), event.clientX - frame.left, event.clientY - frame.top);
  },
  { passive: false },
);

stage.addEventListener("pointerdown", (down) => {
  if (down.pointerType !== "mouse" || down.button) return;
  wasDragged = false;
  const start = { left: stage.scrollLeft, top: stage.scrollTop };
  const move = (event) => {
    const [dx, dy] = [event.clientX - down.clientX, event.clientY - down.clientY];
    if (Math.hypot(dx, dy) > 4) wasDragged = true;
    if (wasDragged) stage.scrollTo(start.left - dx, start.top - dy);
  };
  window.addEventListener("pointermove", move);
  window.addEventListener("pointerup", () => window.removeEventListener("pointermove", move), { once: true });
});
scale(Math.max(fitting(), LEGIBLE));
stage.scrollTo(0, 0);
