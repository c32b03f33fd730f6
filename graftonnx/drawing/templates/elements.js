// Elements of a page and numbers for people. Texts go into the page as text only.

/** Make an element; strings among its children become text. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A long name with places where a line may break. */
function breakable(name) {
  const parts = name.split(/(?<=[./_])/u).flatMap((part) => [document.createElement("wbr"), part]);
  const whole = document.createDocumentFragment();
  whole.append(...parts.slice(1));
  return whole;
}

function button(text, action, className = "link") {
  const element = make("button", { type: "button", className }, breakable(text));
  element.addEventListener("click", action);
  return element;
}

/** A large number in thousands, millions or billions. */
function short(value) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return `${Number((value / size).toPrecision(3))} ${unit}`;
  }
  return String(value);
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** Names and values, side by side. */
function facts(rows) {
  const list = make("dl", { className: "pairs" });
  for (const [name, value] of rows) list.append(make("dt", {}, name), make("dd", {}, value));
  return list;
}
