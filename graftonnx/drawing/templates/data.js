// The data of the page, from the JSON in #data.

const data = JSON.parse(document.getElementById("data").textContent);
const figure = document.querySelector(".figure");
const stage = document.querySelector(".stage");
const details = document.getElementById("details");

/** Undo the front coding of names: each shares its beginning with the one before, or with `others`. */
function unfold({ shared, rest }, others = null) {
  let last = "";
  return rest.map((suffix, index) => {
    last = (others ? others[index] : last).slice(0, shared[index]) + suffix;
    return last;
  });
}

const values = unfold(data.values);
const names = unfold(data.names, values);

/** Operator number `id`. */
function operator(id) {
  return {
    kind: [data.kinds[data.kind[id]], data.abouts[data.about[id]]].join(" ").trim(),
    value: values[id],
    name: names[id],
    shape: data.shapes[data.shape[id]],
    parameters: data.parameters[id],
    macs: data.macs[id],
    reads: data.reads[id].map((source) => (typeof source === "string" ? source : values[id - source])),
  };
}

const sum = (numbers, [first, length]) =>
  numbers.slice(first, first + length).reduce((total, number) => total + number, 0);

const blocks = data.blocks.map(([column, first, length, shape], index) => ({
  index,
  column,
  range: [first, length],
  tap: data.columns[column].prefix + values[first + length - 1],
  shape,
  parameters: sum(data.parameters, [first, length]),
  macs: sum(data.macs, [first, length]),
}));
const blockOf = new Map(blocks.map((block) => [block.tap, block]));
const boxOf = new Map(Object.entries(data.boxes).flatMap(([key, members]) => members.map((i) => [i, key])));
const skips = new Map(data.skips.map((skip) => [skip.key, skip]));
