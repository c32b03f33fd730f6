// What a block, a group of blocks, a skip or the head is made of.

const shapes = new Map([...figure.querySelectorAll("[data-key]")].map((g) => [g.dataset.key, g]));
const boxes = [...figure.querySelectorAll(".box[data-key]")];

function mark(key) {
  figure.querySelectorAll(".chosen, .lit").forEach((shape) => shape.classList.remove("chosen", "lit"));
  const shape = shapes.get(key);
  if (shape) shape.classList.add("chosen");
  const taps = new Set((data.boxes[key] || []).map((index) => blocks[index].tap));
  for (const skip of data.skips) {
    const isTouched = skip.key === key || taps.has(skip.source) || taps.has(skip.target);
    shapes.get(skip.key).classList.toggle("lit", isTouched);
  }
}

function reveal(key) {
  const shape = shapes.get(key);
  if (shape) shape.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** Show what a box or a skip is. */
function choose(key) {
  mark(key);
  if (skips.has(key)) return show(skipDetails(skips.get(key)));
  if (key === "head") return show(headDetails());
  const members = data.boxes[key];
  return show(members.length === 1 ? blockDetails(blocks[members[0]]) : groupDetails(key, members));
}

function chooseBlock(block) {
  const key = boxOf.get(block.index);
  mark(key);
  reveal(key);
  show(blockDetails(block));
}

function show(content) {
  details.replaceChildren(...content);
  details.scrollTop = 0;
}

function blockDetails(block) {
  const letter = data.columns[block.column].letter;
  const key = boxOf.get(block.index);
  const isInGroup = data.boxes[key].length > 1;
  return [
    make("h3", {}, breakable(block.tap)),
    facts([
      ...(letter ? [["branch", `${letter}: ${data.columns[block.column].name}`]] : []),
      ["output", block.shape || "unknown shape"],
      ["parameters", block.parameters.toLocaleString("en")],
      ["MACs", block.macs.toLocaleString("en")],
    ]),
    ...skipList(block.tap),
    operatorList(block.range),
    ...(isInGroup ? [button(`All ${data.boxes[key].length} blocks of this box`, () => choose(key))] : []),
  ];
}

function groupDetails(key, members) {
  const list = make("ul", { className: "plain" });
  for (const index of members) {
    const block = blocks[index];
    list.append(
      make("li", {}, button(block.tap, () => chooseBlock(block)), make("span", {}, ` ${block.shape}`)),
    );
  }
  return [make("h3", {}, `${members.length} blocks`), list];
}

function headDetails() {
  const about = "What decides over the branches' features.";
  return [make("h3", {}, "Head"), make("p", { className: "about" }, about), operatorList(data.head)];
}

/** The skips that begin or end at a tap. */
function skipList(tap) {
  const touching = data.skips.filter((skip) => skip.source === tap || skip.target === tap);
  if (!touching.length) return [];
  const list = make("ul", { className: "plain" });
  for (const skip of touching) {
    const [word, other] = skip.source === tap ? ["to", skip.target] : ["from", skip.source];
    const name = `${skip.exchange}: ${word} ${other}`;
    list.append(make("li", {}, button(name, () => choose(skip.key)), make("span", {}, ` ${skip.projection}`)));
  }
  return [make("h4", {}, "Skips"), list];
}

function skipDetails(skip) {
  const ends = [["from", skip.source], ["to", skip.target]].map(([word, tap]) => [
    word,
    button(tap, () => chooseBlock(blockOf.get(tap))),
  ]);
  const rows = [
    ...ends,
    ["projection", skip.projection],
    ["score", skip.score === null ? "none: made by hand" : skip.score.toFixed(2)],
    ...(skip.share === null ? [] : [["strength", `adds ${percent(skip.share)} of its target's norm`]]),
    ["parameters", skip.parameters.toLocaleString("en")],
    ["MACs", skip.macs.toLocaleString("en")],
  ];
  const toggle = button("", () => {
    turn(skip, !isOn.get(skip.key));
    toggle.textContent = label();
  }, "");
  const label = () => (isOn.get(skip.key) ? "Switch off" : "Switch on");
  toggle.textContent = label();
  return [make("h3", {}, `Skip of exchange ${skip.exchange}`), facts(rows), toggle];
}

/** The operators of a block; the table is built when it is unfolded. */
function operatorList([first, length]) {
  const fold = make("details", { className: "operators" }, make("summary", {}, count(length, "operator")));
  fold.addEventListener("toggle", () => fold.childElementCount > 1 || fold.append(operatorTable(first, length)), {
    once: true,
  });
  fold.open = length <= 12;
  return fold;
}

function operatorTable(first, length) {
  const table = make("table", {});
  table.createTHead().insertRow().append(
    ...["Operator", "Output", "Parameters", "MACs"].map((text) => make("th", { scope: "col" }, text)),
  );
  const body = table.createTBody();
  for (let id = first; id < first + length; id += 1) body.append(operatorRow(operator(id), id, first));
  return make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Operators" }, table);
}

const note = (text) => make("span", { className: "reads" }, breakable(text));

function operatorRow(op, id, first) {
  const isInLine = id > first && op.reads.length === 1 && op.reads[0] === values[id - 1];
  const reads = isInLine || !op.reads.length ? null : note(`reads ${op.reads.join(", ")}`);
  const name = op.name && op.name !== op.value ? note(`node ${op.name}`) : null;
  return make(
    "tr",
    {},
    make("th", { scope: "row" }, op.kind, make("span", { className: "value" }, breakable(op.value)), name, reads),
    make("td", {}, op.shape),
    make("td", { className: "number" }, op.parameters ? op.parameters.toLocaleString("en") : ""),
    make("td", { className: "number" }, op.macs ? short(op.macs) : ""),
  );
}

figure.addEventListener("click", (event) => {
  const shape = event.target.closest("[data-key]");
  if (shape && !wasDragged) {
    if (shape.classList.contains("box")) rove(shape, false);
    choose(shape.dataset.key);
  }
});
