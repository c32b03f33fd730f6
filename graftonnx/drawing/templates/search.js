// Find blocks by their names and operators.

const search = document.getElementById("search");
const results = document.getElementById("results");
const MOST_RESULTS = 50;
let texts = null;

/** For every block all its names and operators, in lower case. */
function blockTexts() {
  texts ??= blocks.map(({ tap, range: [first, length] }) => {
    const words = [tap];
    for (let id = first; id < first + length; id += 1) words.push(values[id], names[id], data.kinds[data.kind[id]]);
    return words.join("\n").toLowerCase();
  });
  return texts;
}

function find() {
  const wanted = search.value.trim().toLowerCase();
  const found = wanted ? blocks.filter((block) => blockTexts()[block.index].includes(wanted)) : [];
  const keys = new Set(found.map((block) => boxOf.get(block.index)));
  figure.classList.toggle("searching", Boolean(wanted));
  boxes.forEach((box) => box.classList.toggle("found", keys.has(box.dataset.key)));
  results.replaceChildren();
  if (!wanted) return [];
  results.append(make("p", { className: "about", role: "status" }, count(found.length, "block")));
  const list = make("ul", { className: "plain" });
  for (const block of found.slice(0, MOST_RESULTS)) {
    list.append(make("li", {}, button(block.tap, () => chooseBlock(block)), make("span", {}, ` ${block.shape}`)));
  }
  results.append(list);
  return found;
}

search.addEventListener("input", find);
search.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    search.value = "";
    find();
  } else if (event.key === "Enter") {
    const [first] = find();
    if (first) chooseBlock(first);
  }
});
