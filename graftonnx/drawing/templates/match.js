// For each two branches: their taps face to face, and the scores of all pairs.

const SVG = "http://www.w3.org/2000/svg";

/** The scores in a picture, one for each pixel: 0..1. */
function readScores(image) {
  const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data: bytes } = context.getImageData(0, 0, canvas.width, canvas.height);
  return (i, j) => bytes[4 * (i * canvas.width + j) + 3] / 255;
}

/** Two branches of the page: a section, its data, and what is pointed at. */
class Pair {
  constructor(section, data) {
    this.section = section;
    this.data = data;
    this.matrix = section.querySelector(".matrix");
    this.readout = section.querySelector(".readout");
    this.taps = [0, 1].map((side) => [...section.querySelectorAll(`.tap[data-side="${side}"]`)]);
    this.score = readScores(section.querySelector(".scores"));
    this.cell = data.chosen.length ? data.chosen[0].slice(0, 2) : [0, 0];
    this.listen();
  }

  listen() {
    this.taps.forEach((taps, side) => {
      taps.forEach((tap, index) => {
        const point = () => this.point(...this.best(side, index));
        tap.addEventListener("pointerenter", point);
        tap.addEventListener("focus", point);
      });
    });
    this.matrix.addEventListener("pointermove", (event) => this.point(...this.under(event)));
    this.matrix.addEventListener("pointerdown", (event) => this.point(...this.under(event)));
    this.matrix.addEventListener("focus", () => this.point(...this.cell));
    this.matrix.addEventListener("keydown", (event) => this.move(event));
  }

  /** The pair of taps under the pointer. */
  under(event) {
    const frame = this.matrix.getBoundingClientRect();
    const place = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    return [
      place((event.clientY - frame.top) / frame.height, this.taps[0].length),
      place((event.clientX - frame.left) / frame.width, this.taps[1].length),
    ];
  }

  move(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [i, j] = this.cell.map((place, side) => place + step[side]);
    if (this.taps[0][i] && this.taps[1][j]) this.point(i, j);
  }

  /** The pair that a tap is exchanged in, or the one with its best partner. */
  best(side, index) {
    const chosen = this.data.chosen.find((pair) => pair[side] === index);
    if (chosen) return chosen.slice(0, 2);
    const known = side === 0 && this.data.reasons[this.name(0, index)];
    if (known) return [index, this.data.taps[1].findIndex((tap) => `${this.data.branches[1]}/${tap[0]}` === known[0])];
    const pairs = this.taps[1 - side].map((_, other) => (side === 0 ? [index, other] : [other, index]));
    return pairs.reduce((best, pair) => (this.score(...pair) > this.score(...best) ? pair : best));
  }

  name(side, index) {
    return `${this.data.branches[side]}/${this.data.taps[side][index][0]}`;
  }

  /** Show a pair everywhere: in the lists, in the matrix, in words. */
  point(i, j) {
    this.cell = [i, j];
    this.section.querySelectorAll(".pointed").forEach((tap) => tap.classList.remove("pointed"));
    [i, j].forEach((index, side) => this.taps[side][index].classList.add("pointed"));
    this.drawLine(i, j);
    this.drawCross(i, j);
    this.readout.replaceChildren(...this.words(i, j));
  }

  drawLine(i, j) {
    const lines = this.section.querySelector(".lines");
    let line = lines.querySelector(".best");
    if (!line) {
      line = document.createElementNS(SVG, "line");
      line.setAttribute("class", "best");
      lines.append(line);
    }
    const ends = { x1: 0, y1: i + 0.5, x2: 100, y2: j + 0.5 };
    Object.entries(ends).forEach(([name, value]) => line.setAttribute(name, value));
  }

  drawCross(i, j) {
    const [row, column] = this.matrix.querySelectorAll(".cross");
    row.setAttribute("y", i);
    column.setAttribute("x", j);
    row.classList.add("shown");
    column.classList.add("shown");
  }

  words(i, j) {
    const [a, b] = [this.data.taps[0][i], this.data.taps[1][j]];
    const [k, l] = [this.data.kinds[0][i], this.data.kinds[1][j]];
    const projections = this.data.projections[k][l];
    const rows = [
      [this.data.branches[0], describe(a)],
      [this.data.branches[1], describe(b)],
      ["score", this.score(i, j).toFixed(2)],
    ];
    if (typeof projections !== "string") {
      const into = [0, 1].filter((side) => this.data.into[side]);
      into.forEach((side) => rows.push([`into ${this.data.branches[side]}`, projections[side]]));
      const [macs, parameters] = this.data.costs.map((table) => table[k][l]);
      rows.push([into.length === 2 ? "cost of both" : "cost", `${short(macs)} MACs, ${short(parameters)} parameters`]);
    }
    return [facts(rows), make("p", { className: "why" }, this.reason(i, j, projections))];
  }

  /** Why a pair is exchanged, or why not. */
  reason(i, j, projections) {
    const { chosen, reasons } = this.data;
    const own = chosen.find((pair) => pair[0] === i && pair[1] === j);
    if (own) return `Exchange ${own[2]}.`;
    const known = reasons[this.name(0, i)];
    if (known && known[0] === this.name(1, j)) return `Not exchanged: ${known[2]}.`;
    if (typeof projections === "string") return `Not exchanged: ${projections}.`;
    if (this.score(i, j) === 0) return "Not exchanged: not worth its cost.";
    const spelled = (pair) => `exchange ${pair[2]} (${this.name(0, pair[0])} and ${this.name(1, pair[1])})`;
    const rival = chosen.find((pair) => pair[0] === i || pair[1] === j);
    if (rival) return `Not exchanged: one of the two is in ${spelled(rival)}.`;
    const crossed = chosen.find((pair) => (pair[0] - i) * (pair[1] - j) < 0);
    const cause = this.data.into.includes(false) ? "pairs keep the order of both branches" : "the two would close a cycle";
    if (crossed) return `Not exchanged: crosses ${spelled(crossed)}; ${cause}.`;
    return "Not exchanged: within the limits other pairs give a larger sum.";
  }
}

function describe([name, shape, depth, isSpine]) {
  return `${name}, ${shape}, depth ${depth.toFixed(2)}${isSpine ? ", ends a block" : ", inside a block"}`;
}

async function begin() {
  const data = JSON.parse(document.getElementById("data").textContent);
  for (const section of document.querySelectorAll(".pair")) {
    const image = section.querySelector(".scores");
    if (image) {
      await image.decode();
      new Pair(section, data[Number(section.dataset.pair)]);
    }
  }
  document.body.dataset.ready = "";
}

begin();
